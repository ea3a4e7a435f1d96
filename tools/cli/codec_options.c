// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/codec_options.h"

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

const char *take_codec(void *place, const char *text)
{
    enum fl_codec codec = fl_codec_named(text);
    if (codec == FL_CODEC_RAW)
        return "is neither lz4 nor zstd";
    *(enum fl_codec *)place = codec;
    return NULL;
}

int codec_check(const char *verb, struct fl_compression how, enum fl_codec usual)
{
    enum fl_codec codec = how.codec == FL_CODEC_RAW ? usual : how.codec;
    unsigned most = fl_codec_level_max(codec);
    return how.level <= most ? EXIT_DONE
                             : cli_usage(verb, "--level: %s has levels from 1 to %u, not %u",
                                         fl_codec_name(codec), most, how.level);
}
