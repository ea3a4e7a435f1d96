// SPDX-License-Identifier: Apache-2.0
//
// Templates that are asked for: the image is opened by a reader, then the template is made and
// pinned.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates.h"
#include "engine/template/templates_internal.h"

static struct fl_template_order *find_order(struct fl_templates *templates, const char *image)
{
    struct fl_template_order *order;
    cds_list_for_each_entry(order, &templates->orders, link)
    {
        if (strcmp(order->image, image) == 0 && order->state != FL_TEMPLATE_ORDER_CANCELLED)
            return order;
    }
    return NULL;
}

static void free_order(struct fl_template_order *order)
{
    cds_list_del(&order->link);
    free(order);
}

// Takes the hold on the image, if there is no error.
static int make_template(struct fl_templates *templates, struct fl_image *image,
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
        fl_template_unpin(template);
}

static void fail_order(struct fl_template_order *order, const char *reason)
{
    order->state = FL_TEMPLATE_ORDER_FAILED;
    snprintf(order->reason, sizeof(order->reason), "%s", reason);
    fl_log(FL_LOG_ERROR, "event=template_failed image=%s reason=\"%s\"", order->image, reason);
}

// An unpinned one of the same image may still be there, for its clones.
static void fulfil_order(struct fl_template_order *order)
{
    struct fl_templates *templates = order->templates;
    struct fl_images *images = templates->options.images;
    struct fl_image *image = order->opened;
    struct fl_template *template = fl_templates_of_record(templates, fl_images_keep(images, image));
    const char *reason = NULL;
    bool there = template != NULL;
    int error = there ? 0 : make_template(templates, image, &template);
    order->opened = NULL;
    if (error || there) // it has its own
        fl_images_put(images, image);
    if (error) {
        fail_order(order, strerror(-error));
        return;
    }
    if (!(template->state->flags & FL_TEMPLATE_PINNED)) {
        make_way(templates, order->image);
        fl_template_pin(template);
        if (fl_template_open_door(template, &reason) != 0) {
            fail_order(order, reason);
            fl_template_unpin(template);
            return;
        }
        fl_template_link(template);
    }
    if (order->complete)
        fl_template_want_complete(template);
    free_order(order);
}

static void image_opened(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_template_order *order = caa_container_of(mail, struct fl_template_order, mail);
    const struct fl_templates_options *with = &order->templates->options;
    bool unwanted = order->state == FL_TEMPLATE_ORDER_CANCELLED;
    bool packing = !order->error && fl_image_is_offered(order->opened);
    if (packing)
        order->error = -EINPROGRESS;
    if (packing || (!order->error && (unwanted || with->ops->refusing(with->arg)))) {
        fl_images_put(with->images, order->opened);
        unwanted = unwanted || !packing;
    }
    if (unwanted) {
        free_order(order);
    } else if (order->error) {
        fail_order(order, fl_image_strerror(order->error));
    } else {
        FL_CRASH_POINT("template_opened");
        fulfil_order(order);
    }
}

static uint64_t open_image(struct fl_io_job *job)
{
    struct fl_template_order *order = caa_container_of(job, struct fl_template_order, job);
    const struct fl_templates_options *with = &order->templates->options;
    order->error = fl_images_get(with->images, order->image, &order->opened);
    order->mail.deliver = image_opened;
    fl_mailbox_post(with->control, &order->mail);
    return 0;
}

int fl_templates_ask(struct fl_templates *templates, const char *image, bool complete)
{
    struct fl_template_order *order = find_order(templates, image);
    if (order && order->state == FL_TEMPLATE_ORDER_OPENING) {
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
    order->state = FL_TEMPLATE_ORDER_OPENING;
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
    if (order && order->state == FL_TEMPLATE_ORDER_OPENING)
        order->state = FL_TEMPLATE_ORDER_CANCELLED;
    else if (order)
        free_order(order);
    if (template)
        fl_template_unpin(template);
    return found;
}
