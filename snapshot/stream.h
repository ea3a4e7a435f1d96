// SPDX-License-Identifier: Apache-2.0
//
// Appends bytes to a file through a buffer, with a running checksum. One thread.
#ifndef FAULTLINE_SNAPSHOT_STREAM_H
#define FAULTLINE_SNAPSHOT_STREAM_H

#include <stddef.h>
#include <stdint.h>

struct fl_stream;

// Writes to fd (not owned) from offset `start` on.
int fl_stream_new(int fd, uint64_t start, struct fl_stream **ret_stream);
void fl_stream_free(struct fl_stream *stream); // NULL is a no-op
int fl_stream_append(struct fl_stream *stream, const void *bytes, size_t len);
int fl_stream_flush(struct fl_stream *stream);
uint64_t fl_stream_bytes(const struct fl_stream *stream);
uint64_t fl_stream_checksum(const struct fl_stream *stream);
// Copies all bytes of the stream to out_fd at out_offset. The stream's fd must be readable.
int fl_stream_copy(struct fl_stream *stream, int out_fd, uint64_t out_offset);

#endif
