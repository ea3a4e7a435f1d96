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

// Firecracker's memory file is always the sum of its regions. A program that has a part of it only,
// such as one that uses the client library, says "part":true in a region: *ret_part (may be NULL).
//
// Any thread. -EINVAL, with *ret_reason set to a constant sentence, if it is not a valid handshake.
int fl_handshake_parse(const char *text, size_t length, struct fl_layout *ret_layout,
                       bool *ret_part, const char **ret_reason);

#endif
