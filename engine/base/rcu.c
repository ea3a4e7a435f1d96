// SPDX-License-Identifier: Apache-2.0
#include "engine/base/rcu.h"

#include <signal.h>

char fl_rcu_edge;
_Thread_local bool fl_rcu_is_reachable;

void fl_rcu_reach(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    fl_rcu_is_reachable = true;
}
