// SPDX-License-Identifier: Apache-2.0
//
// The options of verbs that give images companions and labels, and what verbs print of these. Main
// thread.
#ifndef FAULTLINE_TOOLS_CLI_ABOUT_OPTIONS_H
#define FAULTLINE_TOOLS_CLI_ABOUT_OPTIONS_H

#include <jansson.h>

#include "snapshot/store.h"
#include "tools/cli/option.h"

struct about_with {
    struct fl_companion_file files[FL_COMPANIONS_MAX]; // .name points into names
    char names[FL_COMPANIONS_MAX][FL_NAME_MAX + 1];
    size_t count;
};
enum { ABOUT_LABELS_MAX = 256 };
struct about_labels {
    const char *labels[ABOUT_LABELS_MAX];
    size_t count;
};

// Read one more NAME=FILE or KEY=VALUE: for CLI_OTHER.
const char *take_with(void *place, const char *text);
const char *take_label(void *place, const char *text);

#define CLI_LABEL(TYPE, MEMBER)                                                                    \
    CLI_OTHER(TYPE, MEMBER, take_label, .name = "label", .value = "KEY=VALUE",                     \
              .help = "a label of the image; may be given several times", .otherwise = "no label")

// Adds parent, companions and labels to the object of an image (docs/json.md). Returns false
// without memory.
bool about_add_json(json_t *object, const struct fl_image_about *about);
void about_print(const struct fl_image_about *about);

#endif
