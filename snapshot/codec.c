// SPDX-License-Identifier: Apache-2.0
#include "snapshot/codec.h"

#include <string.h>

#define ZSTD_LEVEL_USUAL 3u

const char *fl_codec_name(enum fl_codec codec)
{
    return codec == FL_CODEC_LZ4 ? "lz4" : codec == FL_CODEC_ZSTD ? "zstd" : "raw";
}

enum fl_codec fl_codec_named(const char *name)
{
    if (strcmp(name, "lz4") == 0)
        return FL_CODEC_LZ4;
    return strcmp(name, "zstd") == 0 ? FL_CODEC_ZSTD : FL_CODEC_RAW;
}

unsigned fl_codec_level_max(enum fl_codec codec)
{
    return codec == FL_CODEC_ZSTD ? FL_ZSTD_LEVEL_MAX : FL_LZ4_LEVEL_MAX;
}

struct fl_compression fl_compression_or(struct fl_compression asked, struct fl_compression usual)
{
    struct fl_compression how = asked;
    if (how.codec == FL_CODEC_RAW)
        how.codec = usual.codec;
    if (how.level == 0 && how.codec == usual.codec)
        how.level = usual.level;
    if (how.level == 0)
        how.level = how.codec == FL_CODEC_ZSTD ? ZSTD_LEVEL_USUAL : 1;
    return how;
}
