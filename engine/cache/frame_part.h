// SPDX-License-Identifier: Apache-2.0
//
// The bytes of one part of a load (frame_load.h) into their place: a frame of its own, or the
// pieces of a page of 2 MiB.
#ifndef FAULTLINE_CACHE_FRAME_PART_H
#define FAULTLINE_CACHE_FRAME_PART_H

#include "engine/cache/frame_load.h"

// The thread that has taken the part. Once: from its stored bytes, or NULL: reads them, and blocks
// on storage. -EBADMSG, -ENOMEM, errors of reading.
int fl_part_attempt(const struct fl_part *part, const void *stored);

#endif
