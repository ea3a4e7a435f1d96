// SPDX-License-Identifier: Apache-2.0
//
// What the verbs that work on a store share: which store, and how a result is printed.
#ifndef FAULTLINE_TOOLS_CLI_STORE_CLI_H
#define FAULTLINE_TOOLS_CLI_STORE_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "snapshot/store.h"

// "--store DIR" where it was given, else $FAULTLINE_STORE, else /var/lib/faultline.
const char *store_dir(const char *option);

#define STORE_HELP "  --store DIR     the store ($FAULTLINE_STORE, else /var/lib/faultline)\n"

// Opens the store or says on stderr why not; NULL then.
struct fl_store *store_open_or_say(const char *verb, const char *dir, bool create);

// What became of the store's index, on stderr, if there is something to say: `what` is complete,
// and the index was made anew, or could not be used, or could not be updated.
void store_say_index(const char *verb, const char *dir, const char *what, bool rebuilt,
                     bool unusable, int error);

// Prints the object on one line of stdout and gives it back. EXIT_DONE; EXIT_FAILED if it is NULL
// (no memory) or stdout cannot be written.
int store_print_json(const char *verb, json_t *object);

// "64 hex digits" of a content id.
void store_format_id(const uint8_t id[32], char ret_hex[65]);
// "2026-11-23T09:42:00Z".
void store_format_time(uint64_t seconds, char *buf, size_t size);

json_t *store_image_json(const struct fl_image_info *info);

#endif
