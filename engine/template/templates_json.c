// SPDX-License-Identifier: Apache-2.0
#include "engine/template/templates.h"

#include <errno.h>

#include <jansson.h>

#include "engine/base/hex.h"
#include "engine/template/templates_internal.h"

enum { CONTENT_ID_BYTES = 32 };

static const char *state_name(const struct fl_template *template)
{
    bool wanted = (template->state->flags & FL_TEMPLATE_COMPLETE) != 0;
    if (wanted && template->error)
        return "failed";
    if (fl_template_sealed(template))
        return "complete";
    return wanted ? "filling" : "open";
}

const char *fl_template_strerror(int error)
{
    switch (error) {
    case -ENOSPC:
        return "the bound on the memory of templates is reached";
    case -EBUSY:
        return "it cannot be sealed while a client holds pages of it (in a pipe, say)";
    default:
        return fl_frame_strerror(error);
    }
}

static json_int_t bytes_of(uint64_t pages)
{
    return (json_int_t)(pages * FL_PAGE_SIZE);
}

static json_t *describe_template(const struct fl_template *template)
{
    char path[PATH_MAX] = "";
    char content_id[2 * CONTENT_ID_BYTES + 1];
    const struct fl_template_state *state = template->state;
    json_t *object = json_pack(
        "{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "image", state->image, "state",
        state_name(template), "pinned", (state->flags & FL_TEMPLATE_PINNED) != 0, "bytes",
        bytes_of(state->pages), "filled", bytes_of(state->filled), "clones",
        (json_int_t) template->clones, "clones_total", (json_int_t) template->clones_all,
        "repaired_pages", (json_int_t)state->repaired, "private_pages", (json_int_t)state->refused);
    if (!object)
        return NULL;
    if (template->image) {
        fl_hex(fl_image_content_id(template->image), CONTENT_ID_BYTES, content_id);
        json_object_set_new(object, "content_id", json_string(content_id));
    }
    if ((state->flags & FL_TEMPLATE_PINNED) && fl_template_path(template, ".template", path))
        json_object_set_new(object, "socket", json_string(path));
    if (template->linked && fl_template_path(template, ".mem", path))
        json_object_set_new(object, "path", json_string(path));
    if (template->error)
        json_object_set_new(object, "error", json_string(fl_template_strerror(template->error)));
    return object;
}

static json_t *describe_order(const struct fl_template_order *order)
{
    bool opening = order->state == FL_TEMPLATE_ORDER_OPENING;
    json_t *object =
        json_pack("{s:s, s:s}", "image", order->image, "state", opening ? "opening" : "failed");
    if (object && !opening)
        json_object_set_new(object, "error", json_string(order->reason));
    return object;
}

struct json_t *fl_templates_json(const struct fl_templates *templates)
{
    const struct fl_template *template;
    const struct fl_template_order *order;
    json_t *list = json_array();
    if (!templates)
        return json_pack("{s:i, s:i, s:o}", "bytes", 0, "limit", 0, "list", list);
    cds_list_for_each_entry(template, &templates->list, link)
        json_array_append_new(list, describe_template(template));
    cds_list_for_each_entry(order, &templates->orders, link)
    {
        if (order->state != FL_TEMPLATE_ORDER_CANCELLED)
            json_array_append_new(list, describe_order(order));
    }
    return json_pack("{s:I, s:I, s:o}", "bytes", bytes_of(templates->shared.budget.used), "limit",
                     bytes_of(templates->shared.budget.limit), "list", list);
}

struct fl_templates_stats fl_templates_stats(const struct fl_templates *templates)
{
    struct fl_templates_stats stats = {0};
    const struct fl_template *template;
    if (!templates)
        return stats;
    stats.bytes = templates->shared.budget.used << FL_PAGE_SHIFT;
    stats.limit = templates->shared.budget.limit << FL_PAGE_SHIFT;
    cds_list_for_each_entry(template, &templates->list, link)
    {
        stats.templates++;
        stats.clones += template->clones;
        stats.repaired += template->state->repaired;
        stats.refused += template->state->refused;
    }
    return stats;
}
