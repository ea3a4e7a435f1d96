// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/rewrite_report.h"

#include <inttypes.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/store_cli.h"

json_t *rewrite_json(const struct fl_rewrite_result *result)
{
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:b}", "packs_rewritten",
        (json_int_t)result->packs_rewritten, "packs_left", (json_int_t)result->packs_left, "images",
        (json_int_t)result->images, "images_left", (json_int_t)result->images_left, "bytes_before",
        (json_int_t)result->bytes_before, "bytes_after", (json_int_t)result->bytes_after, "pages",
        (json_int_t)result->pages, "pages_left_out", (json_int_t)result->pages_left_out,
        "bad_frames", (json_int_t)result->bad_frames, "seconds", result->seconds,
        "index_not_updated", result->index_not_updated);
}

void rewrite_print(const char *did, const struct fl_rewrite_result *result)
{
    char before[32];
    char after[32];
    printf("%s %" PRIu64 " pack%s of %s to %s, for %" PRIu64 " image%s, in %.2f s; %" PRIu64
           " pack%s left as %s\n",
           did, result->packs_rewritten, cli_s(result->packs_rewritten),
           cli_format_bytes(result->bytes_before, before, sizeof(before)),
           cli_format_bytes(result->bytes_after, after, sizeof(after)), result->images,
           cli_s(result->images), result->seconds, result->packs_left, cli_s(result->packs_left),
           result->packs_left == 1 ? "it is" : "they are");
    if (result->pages_left_out > 0)
        printf("left out %" PRIu64 " page%s that no image needs there\n", result->pages_left_out,
               cli_s(result->pages_left_out));
}

void rewrite_warn(const char *verb, const char *dir, const struct fl_rewrite_result *result)
{
    if (result->bad_frames > 0)
        cli_warn(verb,
                 "%" PRIu64 " damaged frame%s stayed in %s old pack: faultline verify tells more, "
                 "and faultline repair heals images",
                 result->bad_frames, cli_s(result->bad_frames),
                 result->bad_frames == 1 ? "its" : "their");
    if (result->images_left > 0)
        cli_warn(verb,
                 "%" PRIu64 " image%s could not be read and stayed as %s: faultline verify names "
                 "%s",
                 result->images_left, cli_s(result->images_left),
                 result->images_left == 1 ? "it was" : "they were",
                 result->images_left == 1 ? "it" : "them");
    store_say_index(verb, dir, "the packs are rewritten", result->index_rebuilt, false,
                    result->index_error);
}
