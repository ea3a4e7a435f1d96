// SPDX-License-Identifier: Apache-2.0
//
// What a VM lacks memory for, and since when (shortage.h).
#ifndef FAULTLINE_VM_SHORTAGE_STATE_H
#define FAULTLINE_VM_SHORTAGE_STATE_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine/base/counter.h"

struct fl_shortage {
    _Atomic uint64_t since_ns; // 0: there is none. Written by the owner, read by others
    fl_counter refused;        // fills that found no memory, ever
    uint64_t times;            // how many have begun; owner only
};

#endif
