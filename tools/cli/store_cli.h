// SPDX-License-Identifier: Apache-2.0
//
// What the verbs that work on a store share: they find and open it, and print results. Main thread.
#ifndef FAULTLINE_TOOLS_CLI_STORE_CLI_H
#define FAULTLINE_TOOLS_CLI_STORE_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "snapshot/store.h"
#include "tools/cli/paths.h"
#include "tools/cli/progress.h"

// Opens the store. Returns NULL after a sentence on stderr.
struct fl_store *store_open_or_say(const char *verb, const char *dir, bool create);

// Prints a sentence on stderr if the store's index was damaged or could not be used or updated;
// `what` says what is complete all the same. rebuilt: the index was built again. unusable: it could
// not be used. error: -errno of the update, or 0.
void store_say_index(const char *verb, const char *dir, const char *what, bool rebuilt,
                     bool unusable, int error);

// Prints the object on one line of stdout, and drops the caller's reference. Returns EXIT_DONE, or
// EXIT_FAILED after a sentence if object is NULL (no memory) or stdout cannot be written.
int store_print_json(const char *verb, json_t *object);

// Where what verify finds to be bad goes.
struct store_found {
    struct progress *progress; // ends with the first line of text
    json_t *bad;               // an array for objects; NULL: lines of text
};
// For fl_verify_options and fl_remote_verify_options; arg: a store_found.
void store_report_bad(void *arg, const char *object, const char *problem);

// Writes a content id as 64 hex digits.
void store_format_id(const uint8_t id[32], char ret_hex[65]);
// Writes seconds since the epoch as "2026-11-23T09:42:00Z", or "?" if that is not possible.
void store_format_time(uint64_t seconds, char *buf, size_t size);

// Returns the object that docs/json.md describes under "An image", or NULL without memory. The
// caller owns it.
json_t *store_image_json(const struct fl_image_info *info);

#endif
