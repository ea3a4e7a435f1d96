// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/handshake.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>

// Enough of JSON's lexical rules to find the end: brackets count unless they stand in a string.
long fl_handshake_length(const char *text, size_t length)
{
    unsigned depth = 0;
    bool string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                string = false;
        } else if (c == '"' && depth > 0) {
            string = true;
        } else if (c == '[' || (c == '{' && depth > 0)) {
            depth++;
        } else if ((c == ']' || c == '}') && depth > 0) {
            if (--depth == 0)
                return (long)i + 1;
        } else if (depth == 0 && c != ' ' && c != '\n' && c != '\r' && c != '\t') {
            return -EINVAL;
        }
    }
    return 0;
}

static const char *get_number(const json_t *object, const char *key, uint64_t *ret_number)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return "a region lacks a number that it must have, or it is not a whole number from 0 up";
    *ret_number = (uint64_t)json_integer_value(value);
    return NULL;
}

// Both keys mean bytes. 1.12 and later send both, 1.7 to 1.11 only the second, before 1.7 neither.
static const char *get_page_size(const json_t *object, uint64_t *ret_bytes)
{
    *ret_bytes = FL_PAGE_SIZE;
    if (json_object_get(object, "page_size"))
        return get_number(object, "page_size", ret_bytes);
    if (json_object_get(object, "page_size_kib"))
        return get_number(object, "page_size_kib", ret_bytes);
    return NULL;
}

static const char *parse_region(const json_t *object, struct fl_layout *layout)
{
    struct fl_region *region = &layout->region[layout->regions];
    uint64_t page_bytes = 0;
    if (!json_is_object(object))
        return "a region is not a JSON object";
    const char *reason = get_number(object, "base_host_virt_addr", &region->base);
    if (!reason)
        reason = get_number(object, "size", &region->bytes);
    if (!reason)
        reason = get_number(object, "offset", &region->offset);
    if (!reason)
        reason = get_page_size(object, &page_bytes);
    if (reason)
        return reason;
    uint32_t shift = fl_page_shift(page_bytes);
    if (layout->regions > 0 && shift != layout->page_shift)
        return "the regions have different page sizes";
    layout->page_shift = shift;
    layout->regions++;
    return NULL;
}

static const char *parse_regions(const json_t *array, struct fl_layout *layout)
{
    if (json_array_size(array) > FL_REGIONS_MAX)
        return "there are more than 64 regions";
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *reason = parse_region(json_array_get(array, i), layout);
        if (reason)
            return reason;
    }
    return NULL;
}

static bool any_says(const json_t *array, const char *key)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (json_is_true(json_object_get(json_array_get(array, i), key)))
            return true;
    }
    return false;
}

int fl_handshake_parse(const char *text, size_t length, struct fl_layout *ret_layout,
                       struct fl_handshake_more *ret_more, const char **ret_reason)
{
    struct fl_layout layout = {0};
    json_error_t where;
    json_t *array = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_array(array)) {
        json_decref(array);
        *ret_reason = "what the client sent is not a JSON array of regions";
        return -EINVAL;
    }
    const char *reason = parse_regions(array, &layout);
    struct fl_handshake_more more = {.part = any_says(array, "part"),
                                     .reserved = any_says(array, "reserved")};
    json_decref(array);
    if (reason) {
        *ret_reason = reason;
        return -EINVAL;
    }
    int error = fl_layout_finish(&layout, ret_reason);
    if (!error)
        *ret_layout = layout;
    if (!error && ret_more)
        *ret_more = more;
    return error;
}
