// SPDX-License-Identifier: Apache-2.0
#include "engine/template/templates.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates_internal.h"

// --- the end of one ---

// Reader thread: what is closed for good takes its time.
static uint64_t free_later(struct fl_io_job *job)
{
    struct fl_template *template = caa_container_of(job, struct fl_template, job);
    FL_CRASH_POINT("template_reaped");
    fl_template_budget_release(&template->shared->budget, template->state->filled);
    fl_template_free(template);
    return 0;
}

static void reap(struct fl_template *template)
{
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    if (template->clones > 0 || template->holds > 0)
        return;
    if (template->passing) {
        atomic_store(&template->cancel, true);
        return;
    }
    fl_log(FL_LOG_INFO, "event=template_gone image=%s clones=%" PRIu64 " filled=%" PRIu64,
           template->state->image, template->clones_all, template->state->filled);
    cds_list_del(&template->link);
    fl_keeper_link_drop(with->keeper_link, FL_RECORD_TEMPLATE, template->id);
    if (template->image)
        fl_images_put(with->images, template->image);
    template->job.run = free_later;
    fl_io_pool_submit(with->io_pool, &template->job);
}

void fl_template_hold(struct fl_template *template)
{
    template->holds++;
}

void fl_template_unhold(struct fl_template *template)
{
    template->holds--;
    reap(template);
}

void fl_template_clone(struct fl_template *template)
{
    template->clones++;
    template->clones_all++;
}

void fl_template_unclone(struct fl_template *template)
{
    template->clones--;
    reap(template);
}

static void unpin(struct fl_template *template)
{
    char path[PATH_MAX];
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    if (fl_template_path(template, ".template", path))
        with->ops->close_door(with->arg, path);
    fl_template_unlink(template);
    atomic_fetch_and(&template->state->flags, ~(uint64_t)FL_TEMPLATE_PINNED);
    fl_template_unhold(template);
}

// --- filling and checking ---

static void start_pass(struct fl_template *template);

// It was given up, and asked for again before its reader had ended.
static bool revived(const struct fl_template *template)
{
    return template->pass_error == -ECANCELED && !atomic_load(&template->shared->ending) &&
           template->clones + template->holds > 0;
}

static void tell_ready(struct fl_template *template, int error)
{
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    with->ops->ready(with->arg, template, error);
}

static void passed(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_template *template = caa_container_of(mail, struct fl_template, mail);
    bool filled = template->goal == FL_TEMPLATE_FILL;
    if (revived(template)) {
        fl_template_pass(template, template->goal, passed);
        return;
    }
    template->passing = false;
    if (filled)
        template->error = template->pass_error;
    if (filled && template->pass_error && template->pass_error != -ECANCELED)
        fl_log(FL_LOG_ERROR, "event=template_failed image=%s filled=%" PRIu64 " reason=\"%s\"",
               template->state->image, template->state->filled,
               fl_template_strerror(template->pass_error));
    if (filled && fl_template_sealed(template)) {
        fl_log(FL_LOG_INFO, "event=template_complete image=%s pages=%" PRIu64,
               template->state->image, template->state->pages);
        fl_template_link(template);
    }
    fl_template_hold(template); // whoever waits may be the last to need it
    tell_ready(template, filled ? 0 : template->pass_error);
    if (template->again)
        start_pass(template);
    fl_template_unhold(template);
}

// A pass that fills everything looks at everything, too.
static void start_pass(struct fl_template *template)
{
    template->again = false;
    if (!fl_template_sealed(template))
        fl_template_pass(template, FL_TEMPLATE_FILL, passed);
}

static void want_complete(struct fl_template *template)
{
    atomic_fetch_or(&template->state->flags, FL_TEMPLATE_COMPLETE);
    if (!template->image || fl_template_sealed(template))
        return;
    template->error = 0; // that of an attempt before: who asks anew is not to be told of it
    if (template->passing)
        template->again = template->goal == FL_TEMPLATE_CHECK;
    else
        start_pass(template);
}

bool fl_template_ready(struct fl_template *template)
{
    if (!template->image || template->passing || !fl_template_suspect(template))
        return template->image && !(template->passing && template->goal == FL_TEMPLATE_CHECK);
    fl_template_pass(template, FL_TEMPLATE_CHECK, passed);
    return false;
}

// --- asking for one ---

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

static struct fl_template_order *find_order(struct fl_templates *templates, const char *image)
{
    struct fl_template_order *order;
    cds_list_for_each_entry(order, &templates->orders, link)
    {
        if (strcmp(order->image, image) == 0 && !order->cancelled)
            return order;
    }
    return NULL;
}

static void free_order(struct fl_template_order *order)
{
    cds_list_del(&order->link);
    free(order);
}

static int listen_for(struct fl_template *template, const char **ret_reason)
{
    char path[PATH_MAX];
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    if (!fl_template_path(template, ".template", path)) {
        *ret_reason = "its path is too long";
        return -ENAMETOOLONG;
    }
    return with->ops->open_door(with->arg, template->state->image, path, ret_reason);
}

static void pin(struct fl_template *template)
{
    atomic_store(&template->cancel, false);
    if (!(atomic_fetch_or(&template->state->flags, FL_TEMPLATE_PINNED) & FL_TEMPLATE_PINNED))
        fl_template_hold(template);
}

// Takes the hold on the image, if there is no error.
static int make(struct fl_templates *templates, struct fl_image *image,
                struct fl_template **ret_template)
{
    uint64_t id = fl_images_keep(templates->options.images, image);
    struct fl_template *template = NULL;
    int error = fl_template_new(&templates->shared, id, fl_image_name(image), fl_image_pages(image),
                                &template);
    if (error)
        return error;
    template->image = image;
    cds_list_add_tail(&template->link, &templates->list);
    fl_keeper_link_put_template(templates->options.keeper_link, id, template->memory,
                                template->state_fd);
    FL_CRASH_POINT("template_kept");
    fl_log(FL_LOG_INFO, "event=template image=%s bytes=%" PRIu64, template->state->image,
           template->state->pages << FL_PAGE_SHIFT);
    *ret_template = template;
    return 0;
}

// One of an image that was replaced since must not have the name.
static void make_way(struct fl_templates *templates, const char *image)
{
    struct fl_template *template = fl_templates_find(templates, image);
    if (template)
        unpin(template);
}

static void fail(struct fl_template_order *order, const char *reason)
{
    snprintf(order->reason, sizeof(order->reason), "%s", reason);
    fl_log(FL_LOG_ERROR, "event=template_failed image=%s reason=\"%s\"", order->image, reason);
}

// An unpinned one of the same image may still be there, for its clones.
static void fulfil(struct fl_template_order *order)
{
    struct fl_templates *templates = order->templates;
    struct fl_images *images = templates->options.images;
    struct fl_image *image = order->opened;
    struct fl_template *template = fl_templates_of_record(templates, fl_images_keep(images, image));
    const char *reason = NULL;
    bool there = template != NULL;
    int error = there ? 0 : make(templates, image, &template);
    order->opened = NULL;
    if (error || there) // it has its own
        fl_images_put(images, image);
    if (error) {
        fail(order, strerror(-error));
        return;
    }
    if (!(template->state->flags & FL_TEMPLATE_PINNED)) {
        make_way(templates, order->image);
        pin(template);
        if (listen_for(template, &reason) != 0) {
            fail(order, reason);
            unpin(template);
            return;
        }
        fl_template_link(template);
    }
    if (order->complete)
        want_complete(template);
    free_order(order);
}

static void opened(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_template_order *order = caa_container_of(mail, struct fl_template_order, mail);
    const struct fl_templates_options *with = &order->templates->options;
    order->opening = false;
    if (order->error && !order->cancelled) {
        fail(order, fl_image_strerror(order->error));
    } else if (!order->error && (order->cancelled || with->ops->refusing(with->arg))) {
        fl_images_put(with->images, order->opened);
        order->cancelled = true;
    }
    if (order->cancelled) {
        free_order(order);
    } else if (!order->error) {
        FL_CRASH_POINT("template_opened");
        fulfil(order);
    }
}

static uint64_t open_image(struct fl_io_job *job)
{
    struct fl_template_order *order = caa_container_of(job, struct fl_template_order, job);
    const struct fl_templates_options *with = &order->templates->options;
    order->error = fl_images_get(with->images, order->image, &order->opened);
    order->mail.deliver = opened;
    fl_mailbox_post(with->control, &order->mail);
    return 0;
}

int fl_templates_ask(struct fl_templates *templates, const char *image, bool complete)
{
    struct fl_template_order *order = find_order(templates, image);
    if (order && order->opening) {
        order->complete = order->complete || complete;
        return 0;
    }
    if (order)
        free_order(order);
    order = calloc(1, sizeof(*order));
    if (!order)
        return -ENOMEM;
    order->templates = templates;
    order->complete = complete;
    order->opening = true;
    snprintf(order->image, sizeof(order->image), "%s", image);
    cds_list_add_tail(&order->link, &templates->orders);
    order->job.run = open_image;
    fl_io_pool_submit(templates->options.io_pool, &order->job);
    return 0;
}

bool fl_templates_unpin(struct fl_templates *templates, const char *image)
{
    struct fl_template_order *order = find_order(templates, image);
    struct fl_template *template = fl_templates_find(templates, image);
    bool found = order || template;
    if (order && order->opening)
        order->cancelled = true;
    else if (order)
        free_order(order);
    if (template)
        unpin(template);
    return found;
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
        unpin(template);
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
        want_complete(template);
    if (!same && (template->state->flags & FL_TEMPLATE_PINNED))
        unpin(template);
    // What its engine was killed over is looked at first.
    if (!same || fl_template_ready(template))
        tell_ready(template, same ? 0 : -EIO);
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
