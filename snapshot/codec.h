// SPDX-License-Identifier: Apache-2.0
//
// How frames are compressed, in words that verbs and files have in common. Any thread.
#ifndef FAULTLINE_SNAPSHOT_CODEC_H
#define FAULTLINE_SNAPSHOT_CODEC_H

#include <stdbool.h>

// The numbers are those of a pack's frame table.
enum fl_codec { FL_CODEC_RAW = 0, FL_CODEC_LZ4 = 1, FL_CODEC_ZSTD = 2 };

// What a writer is asked for. Single frames are stored raw all the same, where that is better.
struct fl_compression {
    enum fl_codec codec; // FL_CODEC_RAW: what the operation does unless it is told otherwise
    unsigned level;      // 0: the codec's usual one
};

// The levels of LZ4 from this one on are those of LZ4HC: smaller, slow to write, and no slower to
// read. Those below are all the fast one.
#define FL_LZ4_LEVEL_HC 3u
#define FL_LZ4_LEVEL_MAX 12u
#define FL_ZSTD_LEVEL_MAX 19u
// What is written once and read often, or kept long, is worth these.
#define FL_LZ4_LEVEL_SMALL 9u
#define FL_ZSTD_LEVEL_SMALL 9u

// "lz4", "zstd" or "raw".
const char *fl_codec_name(enum fl_codec codec);
// Returns FL_CODEC_RAW for a name that no writer can be asked for.
enum fl_codec fl_codec_named(const char *name);
unsigned fl_codec_level_max(enum fl_codec codec);
// Returns `asked` with what it leaves open taken from `usual`: its codec, and its level if that is
// the codec which is used.
struct fl_compression fl_compression_or(struct fl_compression asked, struct fl_compression usual);

#endif
