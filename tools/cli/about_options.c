// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/about_options.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/store_cli.h"

const char *take_with(void *place, const char *text)
{
    struct about_with *with = place;
    const char *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : 0;
    if (!equals || equals[1] == '\0' || length > FL_NAME_MAX)
        return "is not NAME=FILE";
    if (with->count == FL_COMPANIONS_MAX)
        return "is more than the 64 that an image can have";
    char *name = with->names[with->count];
    memcpy(name, text, length);
    name[length] = '\0';
    if (!fl_name_valid(name))
        return "does not begin with a name: 1 to 128 of A-Z a-z 0-9 . _ -";
    for (size_t i = 0; i < with->count; i++) {
        if (strcmp(with->names[i], name) == 0)
            return "has a name that was given already";
    }
    with->files[with->count] = (struct fl_companion_file){.name = name, .path = equals + 1};
    with->count++;
    return NULL;
}

const char *take_label(void *place, const char *text)
{
    struct about_labels *labels = place;
    if (!fl_label_valid(text))
        return "is not KEY=VALUE, with a key of A-Z a-z 0-9 . _ - and printable ASCII behind it";
    if (labels->count == ABOUT_LABELS_MAX)
        return "is more than the 256 that can be given";
    for (size_t i = 0; i < labels->count; i++) {
        if (fl_label_compare(labels->labels[i], text) == 0)
            return "has a key that was given already";
    }
    labels->labels[labels->count++] = text;
    return NULL;
}

static json_t *parent_json(const struct fl_image_about *about)
{
    char id[65];
    store_format_id(about->parent_content_id, id);
    return about->parent[0] == '\0'
               ? json_null()
               : json_pack("{s:s,s:s}", "name", about->parent, "content_id", id);
}

static json_t *companions_json(const struct fl_image_about *about)
{
    json_t *array = json_array();
    for (size_t i = 0; i < about->companions_count; i++) {
        char id[65];
        store_format_id(about->companions[i].content_id, id);
        json_array_append_new(array,
                              json_pack("{s:s,s:I,s:s}", "name", about->companions[i].name, "bytes",
                                        (json_int_t)about->companions[i].bytes, "content_id", id));
    }
    return array;
}

static json_t *labels_json(const struct fl_image_about *about)
{
    json_t *object = json_object();
    for (size_t i = 0; i < about->labels_count; i++) {
        char key[FL_NAME_MAX + 1];
        size_t length = strcspn(about->labels[i], "=");
        snprintf(key, sizeof(key), "%.*s", (int)length, about->labels[i]);
        json_object_set_new(object, key, json_string(about->labels[i] + length + 1));
    }
    return object;
}

bool about_add_json(json_t *object, const struct fl_image_about *about)
{
    return json_object_set_new(object, "parent", parent_json(about)) == 0 &&
           json_object_set_new(object, "companions", companions_json(about)) == 0 &&
           json_object_set_new(object, "labels", labels_json(about)) == 0;
}

void about_print(const struct fl_image_about *about)
{
    char text[65];
    if (about->parent[0] != '\0') {
        store_format_id(about->parent_content_id, text);
        printf("parent         %s, with content id %s\n", about->parent, text);
    }
    for (size_t i = 0; i < about->labels_count; i++)
        printf("label          %s\n", about->labels[i]);
    for (size_t i = 0; i < about->companions_count; i++)
        printf("companion      %s  (%s)\n", about->companions[i].name,
               cli_format_bytes(about->companions[i].bytes, text, sizeof(text)));
}
