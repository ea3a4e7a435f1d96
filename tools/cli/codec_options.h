// SPDX-License-Identifier: Apache-2.0
//
// The options of verbs that compress pages. Main thread.
#ifndef FAULTLINE_TOOLS_CLI_CODEC_OPTIONS_H
#define FAULTLINE_TOOLS_CLI_CODEC_OPTIONS_H

#include "snapshot/codec.h"
#include "tools/cli/option.h"

// For CLI_OTHER: a codec.
const char *take_codec(void *place, const char *text);

// MEMBER is a struct fl_compression.
#define CLI_CODEC(TYPE, MEMBER, ...)                                                               \
    CLI_OTHER(TYPE, MEMBER.codec, take_codec, .name = "codec", .value = "CODEC",                   \
              .choices = "lz4|zstd", __VA_ARGS__)
#define CLI_LEVEL(TYPE, MEMBER, ...)                                                               \
    CLI_COUNT(TYPE, MEMBER.level, .name = "level", .value = "N", .low = 1,                         \
              .high = FL_ZSTD_LEVEL_MAX, __VA_ARGS__)

// Returns EXIT_DONE, or EXIT_USAGE after a sentence if the codec has no such level. `usual` is the
// codec that the verb uses unless it is told otherwise.
int codec_check(const char *verb, struct fl_compression how, enum fl_codec usual);

#endif
