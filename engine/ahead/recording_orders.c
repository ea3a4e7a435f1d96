// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/recording_orders.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"

#define BYTES_MOST ((uint64_t)256 << 20)

void fl_recording_orders_init(struct fl_recording_orders *recordings)
{
    *recordings = (struct fl_recording_orders){0};
    CDS_INIT_LIST_HEAD(&recordings->orders);
    CDS_INIT_LIST_HEAD(&recordings->cancelled);
}

static void recording_drop(struct fl_recording_orders *recordings, struct fl_vm_recording *touches)
{
    cds_list_del(&touches->in_order);
    recordings->bytes -= touches->bytes;
    fl_vm_recording_free(touches);
}

void fl_recording_orders_fini(struct fl_recording_orders *recordings)
{
    struct fl_vm_recording *touches;
    struct fl_vm_recording *next;
    while (!cds_list_empty(&recordings->orders))
        fl_recording_orders_remove(
            recordings, cds_list_first_entry(&recordings->orders, struct fl_order, link));
    cds_list_for_each_entry_safe(touches, next, &recordings->cancelled, in_order)
        recording_drop(recordings, touches);
}

struct fl_order *fl_recording_orders_find(struct fl_recording_orders *recordings, const char *image)
{
    struct fl_order *order;
    cds_list_for_each_entry(order, &recordings->orders, link)
    {
        if (strcmp(order->image, image) == 0)
            return order;
    }
    return NULL;
}

struct fl_order *fl_recording_orders_add(struct fl_recording_orders *recordings,
                                         const struct fl_order *wanted)
{
    struct fl_order *order = recordings->count < FL_ORDERS_MOST ? calloc(1, sizeof(*order)) : NULL;
    if (!order)
        return NULL;
    *order = *wanted;
    order->begun = 0;
    order->ended = 0;
    CDS_INIT_LIST_HEAD(&order->records);
    cds_list_add_tail(&order->link, &recordings->orders);
    recordings->count++;
    return order;
}

void fl_recording_orders_remove(struct fl_recording_orders *recordings, struct fl_order *order)
{
    struct fl_vm_recording *touches;
    struct fl_vm_recording *next;
    cds_list_for_each_entry_safe(touches, next, &order->records, in_order)
    {
        if (touches->ended) {
            recording_drop(recordings, touches);
            continue;
        }
        touches->order = NULL;
        cds_list_move(&touches->in_order, &recordings->cancelled);
        atomic_store(&touches->cancelled, true);
    }
    cds_list_del(&order->link);
    recordings->count--;
    free(order);
}

// The memory that it did not need is given back.
static void recording_shrink(struct fl_recording_orders *recordings,
                             struct fl_vm_recording *touches)
{
    uint64_t count = fl_counter_get(&touches->count);
    struct fl_trace_entry *entry = realloc(touches->entry, count * sizeof(*entry));
    if (entry)
        touches->entry = entry;
    free(touches->seen);
    touches->seen = NULL;
    uint64_t bytes = sizeof(*touches) + count * sizeof(*entry);
    recordings->bytes -= touches->bytes - bytes;
    touches->bytes = bytes;
}

// Mail from the worker.
static void recording_ended(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_vm_recording *touches = caa_container_of(mail, struct fl_vm_recording, mail);
    struct fl_recording_orders *recordings = touches->orders;
    struct fl_order *order = touches->order;
    uint64_t count = fl_counter_get(&touches->count);
    if (order)
        fl_log(FL_LOG_INFO, "event=recorded vm=%" PRIu64 " image=%s pages=%" PRIu64 " us=%" PRIu64,
               touches->vm_id, order->image, count, (fl_now() - touches->begun_ns) / FL_NS_PER_US);
    if (!order || count == 0) { // one that touched nothing says nothing: the next VM is recorded
        if (order)
            order->begun--;
        recording_drop(recordings, touches);
        return;
    }
    touches->ended = true;
    order->ended++;
    recording_shrink(recordings, touches);
    // Those that are complete stand first, in the order in which they became so.
    struct fl_vm_recording *at;
    struct cds_list_head *before = &order->records;
    cds_list_for_each_entry(at, &order->records, in_order)
    {
        if (at->ended && at != touches)
            before = &at->in_order;
    }
    cds_list_move(&touches->in_order, before);
}

struct fl_vm_recording *fl_recording_orders_begin(struct fl_recording_orders *recordings,
                                                  uint64_t vm_id, const struct fl_image *image,
                                                  const struct fl_layout *layout)
{
    struct fl_order *order = fl_recording_orders_find(recordings, fl_image_name(image));
    if (!order || order->begun == order->runs || !fl_image_content_id(image))
        return NULL;
    struct fl_vm_recording *touches = NULL;
    if (recordings->bytes + fl_vm_recording_bytes(image, layout, order->share) <= BYTES_MOST)
        touches = fl_vm_recording_new(image, layout, order->window_ms, order->share);
    if (!touches) {
        fl_log(FL_LOG_WARNING,
               "event=record_failed vm=%" PRIu64 " image=%s reason=\"there is no room for its "
               "recording\"",
               vm_id, order->image);
        return NULL;
    }
    touches->vm_id = vm_id;
    touches->orders = recordings;
    touches->order = order;
    touches->mail.deliver = recording_ended;
    recordings->bytes += touches->bytes;
    order->begun++;
    cds_list_add_tail(&touches->in_order, &order->records);
    return touches;
}

const struct fl_vm_recording *fl_order_run(const struct fl_order *order, unsigned run)
{
    struct fl_vm_recording *touches;
    if (run >= order->ended)
        return NULL;
    cds_list_for_each_entry(touches, &order->records, in_order)
    {
        if (run-- == 0)
            return touches;
    }
    return NULL;
}

struct fl_recording_orders_now fl_recording_orders_now(const struct fl_recording_orders *recordings)
{
    const struct fl_order *order;
    const struct fl_vm_recording *touches;
    struct fl_recording_orders_now now = {.orders = recordings->count};
    cds_list_for_each_entry(order, &recordings->orders, link)
    {
        cds_list_for_each_entry(touches, &order->records, in_order)
        {
            now.vms += !touches->ended;
            now.pages += touches->ended ? 0 : fl_counter_get(&touches->count);
        }
    }
    return now;
}
