// SPDX-License-Identifier: Apache-2.0
#include "engine/template/templates.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates_internal.h"

// --- those that there are ---

struct fl_template *fl_templates_find(struct fl_templates *templates, const char *image)
{
    struct fl_template *template;
    if (!templates)
        return NULL;
    cds_list_for_each_entry(template, &templates->list, link)
    {
        if ((template->state->flags & FL_TEMPLATE_PINNED) &&
            strcmp(template->state->image, image) == 0)
            return template;
    }
    return NULL;
}

struct fl_template *fl_templates_of_record(struct fl_templates *templates, uint64_t record)
{
    struct fl_template *template;
    if (!templates || !record)
        return NULL;
    cds_list_for_each_entry(template, &templates->list, link)
    {
        if (template->id == record)
            return template;
    }
    return NULL;
}

void fl_templates_follow(struct fl_templates *templates)
{
    struct fl_template *template;
    struct fl_template *next;
    if (!templates)
        return;
    cds_list_for_each_entry_safe(template, next, &templates->list, link)
    {
        if (!(template->state->flags & FL_TEMPLATE_PINNED) || !template->image ||
            fl_images_is_current(templates->options.images, template->image))
            continue;
        fl_log(FL_LOG_INFO,
               "event=template_unpinned image=%s reason=\"the image was removed or replaced\"",
               template->state->image);
        fl_template_unpin(template);
    }
}

// --- from a predecessor, and for a successor ---

bool fl_templates_adopt(struct fl_templates *templates, uint64_t id, int fds[])
{
    struct fl_template *template = NULL;
    int error = fds[0] < 0 || fds[1] < 0
                    ? -EINVAL
                    : fl_template_open(&templates->shared, id, fds[0], fds[1], &template);
    if (error) { // its VMs get their pages privately
        fl_log(FL_LOG_ERROR, "event=adopt_failed template=%" PRIu64 " reason=\"%s\"", id,
               strerror(-error));
        if (error != -EPROTONOSUPPORT)
            fl_keeper_link_drop(templates->options.keeper_link, FL_RECORD_TEMPLATE, id);
        return false;
    }
    fds[0] = fds[1] = -1;
    fl_template_budget_take(&templates->shared.budget, template->state->filled);
    template->holds = 1;
    if (template->state->flags & FL_TEMPLATE_PINNED)
        template->holds++;
    cds_list_add_tail(&template->link, &templates->list);
    return true;
}

void fl_templates_image_opened(struct fl_templates *templates, uint64_t id, struct fl_image *image)
{
    struct fl_template *template = fl_templates_of_record(templates, id);
    if (!template || template->image)
        return;
    bool same = image && fl_image_pages(image) == template->state->pages;
    if (same)
        template->image = fl_images_use(templates->options.images, image);
    if (same && (template->state->flags & FL_TEMPLATE_COMPLETE))
        fl_template_want_complete(template);
    if (!same && (template->state->flags & FL_TEMPLATE_PINNED))
        fl_template_unpin(template);
    // What its engine was killed over is looked at first.
    if (!same || fl_template_ready(template))
        fl_template_tell_ready(template, same ? 0 : -EIO);
}

void fl_templates_settle(struct fl_templates *templates, uint64_t id)
{
    struct fl_template *template = fl_templates_of_record(templates, id);
    if (template)
        fl_template_unhold(template);
}

void fl_templates_serve(struct fl_templates *templates)
{
    struct fl_template *template;
    cds_list_for_each_entry(template, &templates->list, link) fl_template_link(template);
}

void fl_templates_look(struct fl_templates *templates)
{
    struct fl_template *template;
    if (!templates)
        return;
    cds_list_for_each_entry(template, &templates->list, link) fl_template_link_look(template);
}

void fl_templates_keep_all(struct fl_templates *templates)
{
    struct fl_template *template;
    if (!templates)
        return;
    cds_list_for_each_entry(template, &templates->list, link) fl_keeper_link_put_template(
        templates->options.keeper_link, template->id, template->memory, template->state_fd);
}

// --- all of them ---

int fl_templates_new(const struct fl_templates_options *options,
                     struct fl_templates **ret_templates)
{
    struct fl_templates *templates = calloc(1, sizeof(*templates));
    if (!templates)
        return -ENOMEM;
    templates->options = *options;
    templates->shared.io_pool = options->io_pool;
    templates->shared.control = options->control;
    fl_template_budget_init(&templates->shared.budget, options->limit_bytes);
    CDS_INIT_LIST_HEAD(&templates->list);
    CDS_INIT_LIST_HEAD(&templates->orders);
    *ret_templates = templates;
    return 0;
}

void fl_templates_stop(struct fl_templates *templates)
{
    if (templates)
        atomic_store(&templates->shared.ending, true);
}

// The keeper's records stay: if this is an engine that could not begin to serve, another one will.
void fl_templates_free(struct fl_templates *templates)
{
    struct fl_template *template;
    struct fl_template *next;
    struct fl_template_order *order;
    struct fl_template_order *following;
    if (!templates)
        return;
    cds_list_for_each_entry_safe(template, next, &templates->list, link)
    {
        fl_template_unlink(template);
        fl_image_unref(template->image);
        fl_template_free(template);
    }
    cds_list_for_each_entry_safe(order, following, &templates->orders, link)
    {
        fl_image_unref(order->opened);
        free(order);
    }
    free(templates);
}
