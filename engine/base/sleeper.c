// SPDX-License-Identifier: Apache-2.0
#include "engine/base/sleeper.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

static long futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void fl_sleeper_prepare(struct fl_sleeper *sleeper)
{
    atomic_store(&sleeper->asleep, 1);
}

void fl_sleeper_sleep(struct fl_sleeper *sleeper)
{
    futex(&sleeper->asleep, FUTEX_WAIT, 1);
}

void fl_sleeper_awake(struct fl_sleeper *sleeper)
{
    atomic_store(&sleeper->asleep, 0);
}

void fl_sleeper_wake(struct fl_sleeper *sleeper)
{
    if (atomic_exchange(&sleeper->asleep, 0))
        futex(&sleeper->asleep, FUTEX_WAKE, 1);
}
