// SPDX-License-Identifier: Apache-2.0
//
// Turns the pages of one frame into its stored bytes and back, in memory. Any thread.
#ifndef FAULTLINE_SNAPSHOT_FRAME_H
#define FAULTLINE_SNAPSHOT_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "snapshot/format.h"

// Returns how many bytes of room fl_frame_encode needs for `pages` pages.
size_t fl_frame_bound(uint32_t pages);

// Returns how large a compressed frame may be. One that would save less than one part in 16 is
// stored raw: that costs the fault path no decompression.
size_t fl_frame_limit(uint32_t pages);

// Compresses `pages` pages with fast LZ4 to out (of fl_frame_bound bytes), or copies them if the
// result would be larger than fl_frame_limit. Fills in everything of ret_frame but the offset.
// Cannot fail. encoder.h has other codecs and levels.
void fl_frame_encode(const void *bytes, uint32_t pages, void *out, struct fl_disk_frame *ret_frame);

// Fills in ret_frame likewise for what another codec has compressed: `stored` bytes in out, or 0 if
// they would be too many.
void fl_frame_seal(const void *bytes, uint32_t pages, size_t stored, enum fl_codec codec, void *out,
                   struct fl_disk_frame *ret_frame);

// Returns true if the frame's fields are possible in a pack whose frames end at `end`.
bool fl_frame_valid(const struct fl_disk_frame *frame, uint64_t end);

// Checks the checksum, then decompresses to buf, of frame->pages pages. stored may be buf for a raw
// frame. -EBADMSG if the checksum or the decompressed size is not the frame's; -ENOMEM, with the
// first zstd frame of a thread only.
int fl_frame_decode(const struct fl_disk_frame *frame, const void *stored, void *buf);
// Decompresses as much as possible to buf, without a look at the checksum. stored must not be buf.
void fl_frame_salvage(const struct fl_disk_frame *frame, const void *stored, void *buf);

#endif
