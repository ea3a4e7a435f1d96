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

static json_t *estimate_json(const struct fl_optimize_result *result)
{
    const struct fl_optimize_estimate *guess = &result->estimate;
    if (!result->dry_run || result->already)
        return json_null();
    return json_pack("{s:I,s:I,s:I,s:I,s:I}", "read_bytes", (json_int_t)guess->read_bytes,
                     "stored_bytes_max", (json_int_t)guess->stored_bytes_max, "write_bytes_max",
                     (json_int_t)guess->write_bytes_max, "space_bytes_max",
                     (json_int_t)guess->space_bytes_max, "free_bytes",
                     (json_int_t)guess->free_bytes);
}

json_t *optimize_json(const char *name, const struct fl_optimize_result *result)
{
    return json_pack(
        "{s:s,s:b,s:I,s:I,s:I,s:o,s:o,s:I,s:I,s:f,s:b,s:b,s:o}", "name", name, "already",
        result->already, "trace_pages", (json_int_t)result->trace_pages, "zero_pages",
        (json_int_t)result->zero_pages, "pages", (json_int_t)result->before.pages, "before",
        cost_json(&result->before), "after", cost_json(&result->after), "stored_bytes",
        (json_int_t)result->stored_bytes, "image_bytes", (json_int_t)result->image_bytes, "seconds",
        result->seconds, "index_not_updated", result->index_not_updated, "dry_run", result->dry_run,
        "estimate", estimate_json(result));
}

static void print_cost(const char *when, const struct fl_replay_cost *cost)
{
    char bytes[32];
    printf("%-6s replay reads %" PRIu64 " frame%s in %" PRIu64 " piece%s (%s) and installs %" PRIu64
           " run%s of pages\n",
           when, cost->frames, cli_s(cost->frames), cost->pieces, cli_s(cost->pieces),
           cli_format_bytes(cost->bytes, bytes, sizeof(bytes)), cost->runs, cli_s(cost->runs));
}

static void print_estimate(const char *name, const struct fl_optimize_result *result)
{
    char read[32];
    char write[32];
    char stored[32];
    char most[32];
    char space[32];
    char free[32];
    const struct fl_optimize_estimate *guess = &result->estimate;
    printf("'faultline optimize %s' will store %" PRIu64 " page%s again beside each other, %" PRIu64
           " zero; nothing was changed\n",
           name, result->before.pages, cli_s(result->before.pages), result->zero_pages);
    printf("it reads  %s from packs\n", cli_format_bytes(guess->read_bytes, read, sizeof(read)));
    printf("it writes at most %s, also what is gone at its end\n",
           cli_format_bytes(guess->write_bytes_max, write, sizeof(write)));
    printf("new pack  %s by estimate, at most %s: the store grows by that\n",
           cli_format_bytes(result->stored_bytes, stored, sizeof(stored)),
           cli_format_bytes(guess->stored_bytes_max, most, sizeof(most)));
    printf("on disk   at most %s are needed meanwhile; %s are free%s\n",
           cli_format_bytes(guess->space_bytes_max, space, sizeof(space)),
           cli_format_bytes(guess->free_bytes, free, sizeof(free)),
           guess->free_bytes < guess->space_bytes_max ? ": IT MAY NOT FIT" : "");
    print_cost("now:", &result->before);
    print_cost("then:", &result->after);
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
    if (result->dry_run) {
        print_estimate(name, result);
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
