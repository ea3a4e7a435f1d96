// SPDX-License-Identifier: Apache-2.0
#include "snapshot/frame.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "snapshot/frame_zstd.h"
#include "snapshot/io.h"

static size_t frame_bytes(uint32_t pages)
{
    return (size_t)pages * FL_PAGE_SIZE;
}

size_t fl_frame_bound(uint32_t pages)
{
    return frame_bytes(pages);
}

size_t fl_frame_limit(uint32_t pages)
{
    return frame_bytes(pages) - frame_bytes(pages) / 16;
}

void fl_frame_seal(const void *bytes, uint32_t pages, size_t stored, enum fl_codec codec, void *out,
                   struct fl_disk_frame *ret_frame)
{
    size_t raw = frame_bytes(pages);
    if (stored == 0) {
        memcpy(out, bytes, raw);
        stored = raw;
        codec = FL_CODEC_RAW;
    }
    *ret_frame = (struct fl_disk_frame){
        .checksum = fl_checksum(out, stored),
        .stored = (uint32_t)stored,
        .pages = (uint16_t)pages,
        .codec = (uint8_t)codec,
    };
}

void fl_frame_encode(const void *bytes, uint32_t pages, void *out, struct fl_disk_frame *ret_frame)
{
    // LZ4 gives up (returns 0) as soon as the output would not fit the limit.
    int stored =
        LZ4_compress_default(bytes, out, (int)frame_bytes(pages), (int)fl_frame_limit(pages));
    fl_frame_seal(bytes, pages, stored > 0 ? (size_t)stored : 0, FL_CODEC_LZ4, out, ret_frame);
}

bool fl_frame_valid(const struct fl_disk_frame *frame, uint64_t end)
{
    if (frame->pages < 1 || frame->pages > FL_FRAME_PAGES_MAX || frame->zero != 0)
        return false;
    size_t raw = frame_bytes(frame->pages);
    bool compressed = frame->codec == FL_CODEC_LZ4 || frame->codec == FL_CODEC_ZSTD;
    bool size_ok = compressed ? frame->stored > 0 && frame->stored < raw
                              : frame->codec == FL_CODEC_RAW && frame->stored == raw;
    return size_ok && frame->offset >= sizeof(struct fl_disk_pack_header) && frame->offset <= end &&
           frame->stored <= end - frame->offset;
}

int fl_frame_decode(const struct fl_disk_frame *frame, const void *stored, void *buf)
{
    if (fl_checksum(stored, frame->stored) != frame->checksum)
        return -EBADMSG;
    int raw = (int)frame_bytes(frame->pages);
    if (frame->codec == FL_CODEC_RAW) {
        if (stored != buf)
            memcpy(buf, stored, (size_t)raw);
        return 0;
    }
    if (frame->codec == FL_CODEC_ZSTD)
        return fl_zstd_decode(stored, frame->stored, buf, (size_t)raw);
    int got = LZ4_decompress_safe(stored, buf, (int)frame->stored, raw);
    return got == raw ? 0 : -EBADMSG;
}

void fl_frame_salvage(const struct fl_disk_frame *frame, const void *stored, void *buf)
{
    int raw = (int)frame_bytes(frame->pages);
    if (frame->codec == FL_CODEC_RAW)
        memcpy(buf, stored, (size_t)raw);
    else if (frame->codec == FL_CODEC_ZSTD)
        (void)fl_zstd_decode(stored, frame->stored, buf, (size_t)raw);
    else
        (void)LZ4_decompress_safe(stored, buf, (int)frame->stored, raw);
}
