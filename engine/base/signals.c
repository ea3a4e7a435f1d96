// SPDX-License-Identifier: Apache-2.0
#include "engine/base/signals.h"

#include <signal.h>
#include <stddef.h>

// TTOU and TTIN would stop a process in the background of a terminal that is set to `tostop` at the
// first line of its log. XFSZ and XCPU come of limits: the call that met one fails instead.
static const int ignored[] = {
    SIGPIPE,   SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,    SIGPWR,
    SIGXCPU,   SIGXFSZ, SIGTTOU, SIGTTIN,   SIGURG,  SIGWINCH,
#ifdef SIGSTKFLT
    SIGSTKFLT,
#endif
};

void fl_signals_ignore(void)
{
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        signal(number, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
}
