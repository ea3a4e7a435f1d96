// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/background.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STEPS 5 // of nice

static void set_io(int priority)
{
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority);
}

int background_begin(void)
{
    int before = getpriority(PRIO_PROCESS, 0);
    setpriority(PRIO_PROCESS, 0, before + STEPS);
    set_io(IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7));
    return before;
}

void background_end(int before)
{
    setpriority(PRIO_PROCESS, 0, before);
    set_io(IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0)); // it follows the processor's again
}
