// SPDX-License-Identifier: Apache-2.0
//
// Decompresses what is stored of a zstd frame. Any thread: each has room of its own, which it makes
// with its first frame.
#ifndef FAULTLINE_SNAPSHOT_FRAME_ZSTD_H
#define FAULTLINE_SNAPSHOT_FRAME_ZSTD_H

#include <stddef.h>

// Decompresses to buf, of `raw` bytes. -EBADMSG: it is not one zstd frame of just this size without
// a dictionary; buf may have any bytes then. -ENOMEM.
int fl_zstd_decode(const void *stored, size_t stored_bytes, void *buf, size_t raw);

#endif
