// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/verbs/report.h"

enum { PATH_BYTES = 96 };
static const char histories[] = "/v1/histories";

static int not_understood(const char *control)
{
    return cli_fail("report", "the server at %s gives an answer that is not understood", control);
}

// --- which VM ---

// By number, else by pid, else the last one of an image: 0, if it is none of these.
static json_int_t find_by(const json_t *list, const char *key, const char *which)
{
    size_t i;
    const json_t *line;
    json_int_t found = 0;
    uint64_t number = 0;
    bool is_number = cli_parse_number(which, 1, INT64_MAX, &number) == 0;
    json_array_foreach(list, i, line)
    {
        const json_t *value = json_object_get(line, key);
        const char *text = json_string_value(value);
        bool same = text ? strcmp(text, which) == 0
                         : is_number && json_integer_value(value) == (json_int_t)number;
        if (same)
            found = json_integer_value(json_object_get(line, "vm"));
    }
    return found;
}

static int find_vm(const char *control, const char *which, json_int_t *ret_vm)
{
    json_t *answer = NULL;
    int status = control_ask("report", control, histories, NULL, &answer);
    if (status != EXIT_DONE)
        return status;
    const json_t *list = json_object_get(answer, "histories");
    *ret_vm = find_by(list, "vm", which);
    *ret_vm = *ret_vm ? *ret_vm : find_by(list, "pid", which);
    *ret_vm = *ret_vm ? *ret_vm : find_by(list, "image", which);
    size_t kept = json_array_size(list);
    bool on = json_integer_value(json_object_get(answer, "history")) > 0;
    json_decref(answer);
    if (*ret_vm)
        return EXIT_DONE;
    return cli_fail("report",
                    kept == 0 && !on
                        ? "the server at %s keeps no histories: give it --history, or order one "
                          "for the next VM (docs/report.md)"
                        : "the server at %s has no history of a VM, a process or an image '%s'",
                    control, which);
}

// --- its parts ---

static int ask_part(const char *control, json_int_t vm, const char *part, uint64_t from,
                    json_t **ret_answer)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s?vm=%" PRId64 "&%s=%" PRIu64, histories, (int64_t)vm, part,
             from);
    return control_ask("report", control, path, NULL, ret_answer);
}

static int fetch_log(const char *control, json_int_t vm, json_t *record)
{
    static const char *const columns[] = {"at_us", "page", "took_ns", "waited"};
    json_t *log =
        json_pack("{s:[], s:[], s:[], s:[]}", columns[0], columns[1], columns[2], columns[3]);
    uint64_t total = 1;
    json_object_set_new(record, "log", log);
    for (uint64_t have = 0; have < total;) {
        json_t *answer = NULL;
        int status = ask_part(control, vm, "log", have, &answer);
        if (status != EXIT_DONE)
            return status;
        size_t got = json_array_size(json_object_get(answer, columns[0]));
        // What comes while it is fetched is left out.
        if (have == 0)
            total = (uint64_t)json_integer_value(json_object_get(answer, "total"));
        for (unsigned i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
            json_array_extend(json_object_get(log, columns[i]),
                              json_object_get(answer, columns[i]));
        json_decref(answer);
        if (got == 0 && have < total)
            return not_understood(control);
        have += got;
    }
    return EXIT_DONE;
}

static int fetch_map(const char *control, json_int_t vm, json_t *record)
{
    char *map = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&map, &size);
    uint64_t pages = (uint64_t)json_integer_value(json_object_get(record, "pages"));
    int status = out ? EXIT_DONE : cli_fail("report", "the host is out of memory");
    for (uint64_t page = 0; status == EXIT_DONE && page < pages;) {
        json_t *answer = NULL;
        json_int_t to = 0;
        const char *part = NULL;
        status = ask_part(control, vm, "map", page, &answer);
        if (status == EXIT_DONE &&
            (json_unpack(answer, "{s:I, s:s}", "to", &to, "map", &part) != 0 ||
             to <= (json_int_t)page))
            status = not_understood(control);
        if (status == EXIT_DONE) {
            fputs(part, out);
            page = (uint64_t)to;
        }
        json_decref(answer);
    }
    if (out && fclose(out) == 0 && status == EXIT_DONE)
        json_object_set_new(record, "map", json_string(map));
    free(map);
    return status;
}

int report_fetch(const char *control, const char *which, json_t **ret_record)
{
    char path[PATH_BYTES];
    json_int_t vm = 0;
    json_t *record = NULL;
    int status = find_vm(control, which, &vm);
    if (status != EXIT_DONE)
        return status;
    snprintf(path, sizeof(path), "%s?vm=%" PRId64, histories, (int64_t)vm);
    status = control_ask("report", control, path, NULL, &record);
    if (status == EXIT_DONE)
        status = fetch_log(control, vm, record);
    if (status == EXIT_DONE)
        status = fetch_map(control, vm, record);
    if (status == EXIT_DONE)
        *ret_record = record;
    else
        json_decref(record);
    return status;
}
