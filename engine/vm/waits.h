// SPDX-License-Identifier: Apache-2.0
//
// How long the faults of a VM took, since this engine serves it. Written by the owner, read by any
// thread.
#ifndef FAULTLINE_VM_WAITS_H
#define FAULTLINE_VM_WAITS_H

#include <stdint.h>

#include "engine/base/counter.h"

struct fl_vm_waits {
    fl_counter now;      // faults that wait for their page
    fl_counter answered; // faults that ended
    fl_counter ns;       // from their reading to their end, all together
    fl_counter most_ns;  // the longest
};

static inline void fl_vm_waits_add(struct fl_vm_waits *waits, uint64_t ns)
{
    fl_counter_add(&waits->answered, 1);
    fl_counter_add(&waits->ns, ns);
    if (ns > fl_counter_get(&waits->most_ns))
        fl_counter_set(&waits->most_ns, ns);
}

#endif
