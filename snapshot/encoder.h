// SPDX-License-Identifier: Apache-2.0
//
// Compresses frames with a codec and a level of one's choice. It keeps what the codec needs, so
// that no frame allocates. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_ENCODER_H
#define FAULTLINE_SNAPSHOT_ENCODER_H

#include "snapshot/format.h"

struct fl_encoder;

// What `how` leaves open is as in fl_compression_or() with fast LZ4. -EINVAL: there is no such
// level; -ENOMEM.
int fl_encoder_new(struct fl_compression how, struct fl_encoder **ret_encoder);
void fl_encoder_free(struct fl_encoder *encoder); // NULL is a no-op

// As fl_frame_encode(), which is fast LZ4.
void fl_encode(struct fl_encoder *encoder, const void *bytes, uint32_t pages, void *out,
               struct fl_disk_frame *ret_frame);

#endif
