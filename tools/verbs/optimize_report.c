// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/optimize_report.h"

#include <inttypes.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/store_cli.h"

static json_t *cost_json(const struct fl_replay_cost *cost)
{
    return json_pack("{s:I,s:I,s:I,s:I}", "frames", (json_int_t)cost->frames, "pieces",
                     (json_int_t)cost->pieces, "bytes", (json_int_t)cost->bytes, "runs",
                     (json_int_t)cost->runs);
}

json_t *optimize_json(const char *name, const struct fl_optimize_result *result)
{
    return json_pack("{s:s,s:b,s:I,s:I,s:I,s:o,s:o,s:I,s:I,s:f,s:b}", "name", name, "already",
                     result->already, "trace_pages", (json_int_t)result->trace_pages, "zero_pages",
                     (json_int_t)result->zero_pages, "pages", (json_int_t)result->before.pages,
                     "before", cost_json(&result->before), "after", cost_json(&result->after),
                     "stored_bytes", (json_int_t)result->stored_bytes, "image_bytes",
                     (json_int_t)result->image_bytes, "seconds", result->seconds,
                     "index_not_updated", result->index_not_updated);
}

static void print_cost(const char *when, const struct fl_replay_cost *cost)
{
    char bytes[32];
    printf("%-6s replay reads %" PRIu64 " frame%s in %" PRIu64 " piece%s (%s) and installs %" PRIu64
           " run%s of pages\n",
           when, cost->frames, cli_s(cost->frames), cost->pieces, cli_s(cost->pieces),
           cli_format_bytes(cost->bytes, bytes, sizeof(bytes)), cost->runs, cli_s(cost->runs));
}

void optimize_print(const char *verb, const char *dir, const char *name,
                    const struct fl_optimize_result *result)
{
    char bytes[32];
    if (result->already) {
        printf("image '%s' was laid out by its trace before\n", name);
        print_cost("now:", &result->after);
        return;
    }
    printf("laid out image '%s' by its trace: %" PRIu64 " page%s stored again beside each other, "
           "%" PRIu64 " zero; %s more in the store, in %.2f s\n",
           name, result->before.pages, cli_s(result->before.pages), result->zero_pages,
           cli_format_bytes(result->stored_bytes, bytes, sizeof(bytes)), result->seconds);
    print_cost("before:", &result->before);
    print_cost("now:", &result->after);
    store_say_index(verb, dir, "the image is laid out", result->index_rebuilt, false,
                    result->index_error);
}
