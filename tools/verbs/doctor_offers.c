// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_offers.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"

enum { COMMAND = PATH_MAX + 64 };

// Works as it is printed, unless there is a quote in the path.
static const char *mend(const char *store, char command[COMMAND])
{
    snprintf(command, COMMAND, "faultline gc --store '%s'", strchr(store, '\'') ? "STORE" : store);
    return cli_plain(command);
}

static size_t keep_left(struct fl_offer_info *all, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (all[i].left)
            all[kept++] = all[i];
    }
    return kept;
}

void doctor_find_offers(const char *store, struct offers *ret_offers)
{
    struct fl_store *opened;
    struct fl_error error;
    *ret_offers = (struct offers){.all = NULL};
    if (fl_store_open(store, false, &opened, &error) != 0)
        return;
    offers_find("doctor", opened, ret_offers);
    ret_offers->count = keep_left(ret_offers->all, ret_offers->count);
    fl_store_close(opened);
}

void doctor_print_offers(const char *store, const struct offers *offers)
{
    char command[COMMAND];
    for (size_t i = 0; i < offers->count; i++)
        printf("image %s was on offer, and the process that packed it was killed: the pages "
               "that are not packed will never come, and a VM that was restored from it ends when "
               "it touches one\n",
               offers->all[i].name);
    if (offers->count > 0)
        printf("  to mend     %s\n", mend(store, command));
}

json_t *doctor_offers_json(const char *store, const struct offers *offers)
{
    char command[COMMAND];
    json_t *list = json_array();
    json_t *path = json_string(store);
    json_t *command_text = json_string(mend(store, command));
    for (size_t i = 0; i < offers->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:O?, s:O?}", "image", offers->all[i].name,
                                              "store", path, "mend", command_text));
    json_decref(path);
    json_decref(command_text);
    return list;
}
