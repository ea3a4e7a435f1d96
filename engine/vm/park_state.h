// SPDX-License-Identifier: Apache-2.0
//
// The faults of a VM that wait (park.h). Owner worker only.
#ifndef FAULTLINE_VM_PARK_STATE_H
#define FAULTLINE_VM_PARK_STATE_H

#include <stdint.h>

#include <urcu/list.h>

enum { FL_PARK_BUCKETS = 64 };

struct fl_parks {
    uint32_t count;
    struct cds_list_head bucket[FL_PARK_BUCKETS];
};

#endif
