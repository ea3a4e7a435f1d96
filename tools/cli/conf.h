// SPDX-License-Identifier: Apache-2.0
//
// The configuration file: lines NAME = VALUE, where the names are those of options. A line is for
// one option; a comment has a line of its own, which begins with #.
#ifndef FAULTLINE_TOOLS_CLI_CONF_H
#define FAULTLINE_TOOLS_CLI_CONF_H

#include "tools/cli/option.h"

// What a file says of one option. The value is NULL if it says nothing.
struct conf_entry {
    const char *value;
    unsigned line;
};

// What a file says of each option of a list, in its order. The texts are the conf's own.
struct conf {
    const char *path; // for sentences
    char *text;
    struct conf_entry entry[CLI_OPTIONS_MAX];
    unsigned wrong; // lines that are wrong; they say nothing
};

// Gets one sentence, without the place, for each line that is wrong.
typedef void conf_report(void *arg, const char *path, unsigned line, const char *sentence);

enum { CONF_BYTES_MAX = 1 << 20 };

// Reads a text of `bytes`. Every name must be that of an option of the list which a file may have,
// and every value must be one that the option takes. Returns 0 or -ENOMEM.
int conf_read(const char *path, const char *text, size_t bytes, const struct cli_place *list,
              size_t count, conf_report *report, void *arg, struct conf *ret_conf);
void conf_free(struct conf *conf);

// Reads all of a file, of at most CONF_BYTES_MAX. Returns 0; -EFBIG; or another -errno. The caller
// frees the text.
int conf_load(int fd, char **ret_text, size_t *ret_bytes);

// Reads the value of an entry into its place; a flag is "on" or "off". Returns false, and a
// sentence's end, if it is wrong.
bool conf_take(const struct cli_option *option, void *place, const char *value,
               char ret_wrong[CLI_WRONG_BYTES]);

// Returns what the file at `path` says of one option, if it can be read and says so rightly, or
// NULL. The caller frees it.
char *conf_find(const char *path, const struct cli_option *option);

#endif
