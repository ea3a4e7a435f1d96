// SPDX-License-Identifier: Apache-2.0
//
// Firecracker's handshake as text: one JSON array with an object for each region, nothing before or
// after (stable since 1.1; Firecracker,
// docs/snapshotting/handling-page-faults-on-snapshot-resume.md and src/vmm/src/persist.rs). Pure:
// touches no descriptor.
#ifndef FAULTLINE_VM_HANDSHAKE_H
#define FAULTLINE_VM_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/host/region.h"

enum { FL_HANDSHAKE_MAX = 65536 };

// The length of the array at the beginning of text; 0 if its end is not there yet, -EINVAL if the
// text does not begin with an array.
long fl_handshake_length(const char *text, size_t length);

// What a program says beyond that, such as one that uses the client library, in a region.
struct fl_handshake_more {
    bool part;     // "part":true: it has a part of its image; Firecracker has all of it
    bool reserved; // "reserved":true: the pool of 2 MiB pages has set all of its pages aside, it
                   // says
};

// *ret_more may be NULL.
//
// Any thread. -EINVAL, with *ret_reason set to a constant sentence, if it is not a valid handshake.
int fl_handshake_parse(const char *text, size_t length, struct fl_layout *ret_layout,
                       struct fl_handshake_more *ret_more, const char **ret_reason);

#endif
