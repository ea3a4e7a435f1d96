// SPDX-License-Identifier: Apache-2.0
#include "snapshot/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "snapshot/io.h"

enum { BUFFER = 256 << 10 };

struct fl_stream {
    int fd;
    uint64_t start;
    uint64_t flushed; // bytes in the file
    size_t fill;      // bytes in the buffer
    XXH3_state_t *checksum;
    char buffer[BUFFER];
};

int fl_stream_new(int fd, uint64_t start, struct fl_stream **ret_stream)
{
    struct fl_stream *stream = malloc(sizeof(*stream));
    XXH3_state_t *checksum = XXH3_createState();
    if (!stream || !checksum) {
        free(stream);
        XXH3_freeState(checksum);
        return -ENOMEM;
    }
    stream->fd = fd;
    stream->start = start;
    stream->flushed = 0;
    stream->fill = 0;
    stream->checksum = checksum;
    XXH3_64bits_reset(checksum);
    *ret_stream = stream;
    return 0;
}

void fl_stream_free(struct fl_stream *stream)
{
    if (!stream)
        return;
    XXH3_freeState(stream->checksum);
    free(stream);
}

int fl_stream_flush(struct fl_stream *stream)
{
    int r =
        fl_pwrite_full(stream->fd, stream->buffer, stream->fill, stream->start + stream->flushed);
    if (r < 0)
        return r;
    stream->flushed += stream->fill;
    stream->fill = 0;
    return 0;
}

int fl_stream_append(struct fl_stream *stream, const void *bytes, size_t len)
{
    const char *at = bytes;
    XXH3_64bits_update(stream->checksum, bytes, len);
    while (len > 0) {
        size_t room = BUFFER - stream->fill;
        size_t step = len < room ? len : room;
        memcpy(stream->buffer + stream->fill, at, step);
        stream->fill += step;
        at += step;
        len -= step;
        int r = stream->fill == BUFFER ? fl_stream_flush(stream) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

uint64_t fl_stream_bytes(const struct fl_stream *stream)
{
    return stream->flushed + stream->fill;
}

uint64_t fl_stream_checksum(const struct fl_stream *stream)
{
    return XXH3_64bits_digest(stream->checksum);
}

int fl_stream_copy(struct fl_stream *stream, int out_fd, uint64_t out_offset)
{
    uint64_t total = fl_stream_bytes(stream);
    // Most streams are small and have never left the buffer.
    if (stream->flushed == 0)
        return fl_pwrite_full(out_fd, stream->buffer, stream->fill, out_offset);
    int r = fl_stream_flush(stream);
    for (uint64_t at = 0; r == 0 && at < total;) {
        size_t step = total - at < BUFFER ? (size_t)(total - at) : BUFFER;
        r = fl_pread_full(stream->fd, stream->buffer, step, stream->start + at);
        if (r == 0)
            r = fl_pwrite_full(out_fd, stream->buffer, step, out_offset + at);
        at += step;
    }
    return r;
}
