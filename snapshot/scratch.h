// SPDX-License-Identifier: Apache-2.0
//
// Memory for a frame's stored bytes while they are decompressed.
#ifndef FAULTLINE_SNAPSHOT_SCRATCH_H
#define FAULTLINE_SNAPSHOT_SCRATCH_H

#include <stddef.h>

// The calling thread's own, until it asks again or ends; NULL without memory. These are a guest's
// bytes, so it is left out of core dumps, which what malloc() gives is not.
void *fl_thread_scratch(size_t bytes);

#endif
