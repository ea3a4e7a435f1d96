// SPDX-License-Identifier: Apache-2.0
#include "snapshot/encoder.h"

#include <errno.h>
#include <lz4.h>
#include <lz4hc.h>
#include <stdlib.h>
#include <zstd.h>

#include "snapshot/frame.h"

struct fl_encoder {
    struct fl_compression how;
    void *lz4;       // the state of LZ4HC; NULL: not used
    ZSTD_CCtx *zstd; // NULL: not used
};

// The size of the content is in the frame: a reader knows what to expect before it decompresses.
// The frame table has a checksum already.
static int begin_zstd(struct fl_encoder *encoder)
{
    encoder->zstd = ZSTD_createCCtx();
    if (!encoder->zstd)
        return -ENOMEM;
    bool bad = ZSTD_isError(ZSTD_CCtx_setParameter(encoder->zstd, ZSTD_c_compressionLevel,
                                                   (int)encoder->how.level)) ||
               ZSTD_isError(ZSTD_CCtx_setParameter(encoder->zstd, ZSTD_c_contentSizeFlag, 1)) ||
               ZSTD_isError(ZSTD_CCtx_setParameter(encoder->zstd, ZSTD_c_checksumFlag, 0));
    return bad ? -EINVAL : 0;
}

static int begin_lz4(struct fl_encoder *encoder)
{
    if (encoder->how.level < FL_LZ4_LEVEL_HC)
        return 0;
    encoder->lz4 = malloc((size_t)LZ4_sizeofStateHC());
    return encoder->lz4 ? 0 : -ENOMEM;
}

int fl_encoder_new(struct fl_compression how, struct fl_encoder **ret_encoder)
{
    how = fl_compression_or(how, (struct fl_compression){FL_CODEC_LZ4, 1});
    if (how.level > fl_codec_level_max(how.codec))
        return -EINVAL;
    struct fl_encoder *encoder = calloc(1, sizeof(*encoder));
    if (!encoder)
        return -ENOMEM;
    encoder->how = how;
    int r = how.codec == FL_CODEC_ZSTD ? begin_zstd(encoder) : begin_lz4(encoder);
    if (r < 0)
        fl_encoder_free(encoder);
    else
        *ret_encoder = encoder;
    return r;
}

void fl_encoder_free(struct fl_encoder *encoder)
{
    if (!encoder)
        return;
    free(encoder->lz4);
    ZSTD_freeCCtx(encoder->zstd);
    free(encoder);
}

// Both return 0 if the output would not fit the limit.
static size_t compress_zstd(struct fl_encoder *encoder, const void *bytes, size_t raw, void *out,
                            size_t limit)
{
    size_t stored = ZSTD_compress2(encoder->zstd, out, limit, bytes, raw);
    return ZSTD_isError(stored) ? 0 : stored;
}

static size_t compress_lz4(struct fl_encoder *encoder, const void *bytes, size_t raw, void *out,
                           size_t limit)
{
    int stored = encoder->lz4 ? LZ4_compress_HC_extStateHC(encoder->lz4, bytes, out, (int)raw,
                                                           (int)limit, (int)encoder->how.level)
                              : LZ4_compress_default(bytes, out, (int)raw, (int)limit);
    return stored > 0 ? (size_t)stored : 0;
}

void fl_encode(struct fl_encoder *encoder, const void *bytes, uint32_t pages, void *out,
               struct fl_disk_frame *ret_frame)
{
    size_t raw = fl_frame_bound(pages);
    size_t limit = fl_frame_limit(pages);
    size_t stored = encoder->how.codec == FL_CODEC_ZSTD
                        ? compress_zstd(encoder, bytes, raw, out, limit)
                        : compress_lz4(encoder, bytes, raw, out, limit);
    fl_frame_seal(bytes, pages, stored, encoder->how.codec, out, ret_frame);
}
