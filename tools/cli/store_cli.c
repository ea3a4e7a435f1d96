// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/store_cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

struct fl_store *store_open_or_say(const char *verb, const char *dir, bool create)
{
    struct fl_store *store;
    struct fl_error error;
    if (fl_store_open(dir, create, &store, &error) == 0)
        return store;
    cli_fail(verb, "%s", error.text);
    return NULL;
}

void store_say_index(const char *verb, const char *dir, const char *what, bool rebuilt,
                     bool unusable, int error)
{
    const char *why = error == -EBADMSG ? "it is damaged, and so is the index that replaced it"
                      : error == -EBUSY ? "it is damaged, and another process uses it"
                                        : strerror(-error);
    if (rebuilt && error == 0)
        cli_warn(verb,
                 "%s; the store's index %s/index was damaged and was built again from the packs",
                 what, dir);
    else if (error < 0 && unusable)
        cli_fail(
            verb,
            "%s, but the store's index %s/index could not be used, so that not all known pages "
            "were shared: %s (faultline gc --rebuild-index builds it again)",
            what, dir, why);
    else if (error < 0)
        cli_warn(verb,
                 "%s, but the store's index %s/index could not be updated: %s (later images may "
                 "share less until faultline gc has run)",
                 what, dir, why);
}

int store_print_json(const char *verb, json_t *object)
{
    if (!object)
        return cli_fail(verb, "there is no memory for the result");
    int r = json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(object);
    putchar('\n');
    // What cannot be written is said at the end (output_end()).
    return r < 0 && !ferror(stdout) ? cli_fail(verb, "there is no memory for the result")
                                    : EXIT_DONE;
}

void store_format_id(const uint8_t id[32], char ret_hex[65])
{
    for (int i = 0; i < 32; i++)
        snprintf(ret_hex + 2 * (size_t)i, 3, "%02x", id[i]);
}

void store_format_time(uint64_t seconds, char *buf, size_t size)
{
    time_t time = (time_t)seconds;
    struct tm tm;
    if (!gmtime_r(&time, &tm) || strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(buf, size, "?");
}

json_t *store_image_json(const struct fl_image_info *info)
{
    char id[65];
    store_format_id(info->content_id, id);
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s}", "name", info->name,
                     "bytes", (json_int_t)info->bytes, "pages", (json_int_t)info->pages,
                     "zero_pages", (json_int_t)info->zero_pages, "duplicate_pages",
                     (json_int_t)info->duplicate_pages, "shared_pages",
                     (json_int_t)info->shared_pages, "stored_pages", (json_int_t)info->stored_pages,
                     "declined_pages", (json_int_t)info->declined_pages, "packs",
                     (json_int_t)info->packs, "packs_missing", (json_int_t)info->packs_missing,
                     "created", (json_int_t)info->created, "content_id", id);
}

void store_report_bad(void *arg, const char *object, const char *problem)
{
    struct store_found *found = arg;
    if (found->bad) {
        json_array_append_new(found->bad,
                              json_pack("{s:s,s:s}", "object", object, "problem", problem));
        return;
    }
    progress_end(found->progress);
    printf("bad: %s: %s\n", object, problem);
}
