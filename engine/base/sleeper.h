// SPDX-License-Identifier: Apache-2.0
//
// A thread that sleeps while there is nothing for it to do. Those that have something pay one load
// for it as long as it is awake.
//
//   the sleeper:  fl_sleeper_prepare(); looks for work; fl_sleeper_sleep() if there is none;
//                 fl_sleeper_awake()
//   the others:   make the work visible; a full barrier; fl_sleeper_notice()
//
// Either the sleeper sees the work, or the other thread sees that it sleeps.
#ifndef FAULTLINE_BASE_SLEEPER_H
#define FAULTLINE_BASE_SLEEPER_H

#include <stdatomic.h>
#include <stdint.h>

struct fl_sleeper {
    _Atomic uint32_t asleep; // a futex
};

// The sleeper only.
void fl_sleeper_prepare(struct fl_sleeper *sleeper);
void fl_sleeper_sleep(struct fl_sleeper *sleeper);
void fl_sleeper_awake(struct fl_sleeper *sleeper);

// Any thread: wakes it if it sleeps.
void fl_sleeper_wake(struct fl_sleeper *sleeper);
static inline void fl_sleeper_notice(struct fl_sleeper *sleeper)
{
    if (atomic_load_explicit(&sleeper->asleep, memory_order_relaxed))
        fl_sleeper_wake(sleeper);
}

#endif
