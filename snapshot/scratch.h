// SPDX-License-Identifier: Apache-2.0
//
// Memory for a frame's stored bytes while they are decompressed.
#ifndef FAULTLINE_SNAPSHOT_SCRATCH_H
#define FAULTLINE_SNAPSHOT_SCRATCH_H

#include <stddef.h>

// Returns memory that belongs to the calling thread until its next call or its end; NULL if there
// is no memory. It holds a guest's bytes, so it is left out of core dumps, unlike memory of
// malloc().
void *fl_thread_scratch(size_t bytes);

#endif
