// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The thread goes round: mail, plan, issue, reads that have ended; it sleeps
// when a round had nothing to do. Mail brings loads that were asked for, extents that are done, and
// the order to stop.
//
// A part is waiting (`first`, in order of use), then in an extent that is planned, then in one that
// is in flight. Parts are planned only when every planned extent is on its way, so that a part that
// is hurried meanwhile need not be read twice: it is dropped at the next of these steps. The thread
// holds a reference to the load of each part that waits or is planned; with the extent it goes to
// the helper that brings the part. All state here is the thread's own, but the mailbox.
//
// At the stop, what waits or is planned is cancelled; what is in flight is waited for.
#include "engine/cache/read_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"
#include "engine/base/mailbox.h"
#include "engine/cache/extent_reads.h"
#include "engine/cache/frame_load.h"

struct fl_read_ahead {
    pthread_t thread;
    struct fl_mailbox mailbox; // any thread
    // The thread's own:
    bool stopping;
    struct fl_part *first; // waiting, in order of use
    struct fl_part **end;
    struct cds_list_head planned;
    struct fl_extent_reads reads;
};

static void drop_part(struct fl_part *part)
{
    fl_load_unref(part->load);
}

// --- extents that are planned ---

static struct fl_extent_read *first_planned(struct fl_read_ahead *ahead)
{
    return cds_list_first_entry(&ahead->planned, struct fl_extent_read, link);
}

// A part that was hurried meanwhile is being read already.
static void drop_taken(struct fl_extent_read *extent)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < extent->parts; i++) {
        if (atomic_load(&extent->part[i]->taken))
            drop_part(extent->part[i]);
        else
            extent->part[kept++] = extent->part[i];
    }
    extent->parts = kept;
}

static bool issue_planned(struct fl_read_ahead *ahead)
{
    bool any = false;
    while (!cds_list_empty(&ahead->planned)) {
        struct fl_extent_read *extent = first_planned(ahead);
        if (!fl_extent_reads_have_room(&ahead->reads, extent->bytes))
            break;
        cds_list_del(&extent->link);
        drop_taken(extent);
        if (extent->parts > 0)
            fl_extent_reads_start(&ahead->reads, extent);
        else
            fl_extent_reads_put(&ahead->reads, extent);
        any = true;
    }
    return any;
}

// --- parts that wait ---

static void append_part(struct fl_read_ahead *ahead, struct fl_part *part)
{
    part->next = NULL;
    *ahead->end = part;
    ahead->end = &part->next;
}

static struct fl_part *pop_part(struct fl_read_ahead *ahead)
{
    struct fl_part *part = ahead->first;
    ahead->first = part->next;
    if (!ahead->first)
        ahead->end = &ahead->first;
    return part;
}

static void loads_asked(void *owner, struct fl_mail *mail)
{
    struct fl_read_ahead *ahead = owner;
    struct fl_load *load = caa_container_of(mail, struct fl_load, mail);
    while (load) {
        struct fl_load *next = load->next;
        if (!atomic_load(&load->hurried) && fl_load_plan(load)) {
            FL_CRASH_POINT("load_planned");
            for (uint32_t i = 0; i < load->parts; i++) {
                atomic_fetch_add(&load->refs, 1);
                append_part(ahead, &load->part[i]);
            }
        }
        fl_load_unref(load);
        load = next;
    }
}

// False if it is none for us: it is taken, or no frame of the image, which its reader will say.
static bool to_item(struct fl_part *part, unsigned order, struct fl_extent_item *ret_item)
{
    if (atomic_load(&part->taken))
        return false;
    if (fl_frame_place(part->load->image, part->id, &part->place) < 0) {
        fl_load_hurry(part->load);
        return false;
    }
    *ret_item = (struct fl_extent_item){.place = part->place, .order = order, .user = part};
    return true;
}

static void plan_extent(struct fl_read_ahead *ahead, const struct fl_extent *planned,
                        const struct fl_extent_item *item)
{
    struct fl_extent_read *extent = fl_extent_reads_take(&ahead->reads);
    extent->fd = planned->fd;
    extent->bytes = planned->bytes;
    extent->offset = planned->offset;
    extent->parts = planned->count;
    for (unsigned i = 0; i < planned->count; i++)
        extent->part[i] = item[planned->first + i].user;
    cds_list_add_tail(&extent->link, &ahead->planned);
}

// The next parts in order of use, when all that were planned before are on their way.
static bool plan_next(struct fl_read_ahead *ahead)
{
    struct fl_extent_item item[FL_EXTENT_READS];
    struct fl_extent extent[FL_EXTENT_READS];
    unsigned items = 0;
    if (!ahead->first || !cds_list_empty(&ahead->planned) || ahead->reads.free_extents == 0 ||
        ahead->reads.in_flight == FL_EXTENT_READS_IN_FLIGHT)
        return false;
    while (ahead->first && items < ahead->reads.free_extents) {
        struct fl_part *part = pop_part(ahead);
        if (to_item(part, items, &item[items]))
            items++;
        else
            drop_part(part);
    }
    unsigned extents = fl_extents_plan(item, items, extent);
    for (unsigned i = 0; i < extents; i++)
        plan_extent(ahead, &extent[i], item);
    return true;
}

// --- the thread ---

static void cancel_all(struct fl_read_ahead *ahead)
{
    while (ahead->first) {
        struct fl_part *part = pop_part(ahead);
        fl_part_cancel(part);
        drop_part(part);
    }
    while (!cds_list_empty(&ahead->planned)) {
        struct fl_extent_read *extent = first_planned(ahead);
        cds_list_del(&extent->link);
        for (unsigned i = 0; i < extent->parts; i++) {
            fl_part_cancel(extent->part[i]);
            drop_part(extent->part[i]);
        }
        fl_extent_reads_put(&ahead->reads, extent);
    }
}

static void wait_for_work(struct fl_read_ahead *ahead)
{
    if (ahead->reads.in_flight == 0)
        fl_extent_reads_idle(&ahead->reads);
    if (!fl_mailbox_sleep(&ahead->mailbox))
        return;
    fl_extent_reads_wait(&ahead->reads);
    fl_mailbox_awake(&ahead->mailbox);
}

static void *ahead_main(void *argument)
{
    struct fl_read_ahead *ahead = argument;
    pthread_setname_np(pthread_self(), "fl-ahead");
    rcu_register_thread();
    fl_rcu_offline(); // all it holds, it holds by references
    while (!ahead->stopping || ahead->reads.in_flight > 0) {
        bool busy = fl_mailbox_drain(&ahead->mailbox, ahead);
        if (ahead->stopping)
            cancel_all(ahead);
        busy |= plan_next(ahead);
        busy |= issue_planned(ahead);
        busy |= fl_extent_reads_turn(&ahead->reads);
        if (!busy && !(ahead->stopping && ahead->reads.in_flight == 0))
            wait_for_work(ahead);
    }
    fl_extent_reads_free_buffers(&ahead->reads);
    fl_rcu_online();
    rcu_unregister_thread();
    return NULL;
}

void fl_read_ahead_ask(struct fl_read_ahead *ahead, struct fl_load *first)
{
    first->mail.deliver = loads_asked;
    fl_mailbox_post(&ahead->mailbox, &first->mail);
}

void fl_read_ahead_free(struct fl_read_ahead *ahead)
{
    fl_extent_reads_fini(&ahead->reads);
    fl_mailbox_fini(&ahead->mailbox);
    free(ahead);
}

int fl_read_ahead_start(struct fl_cache *cache, struct fl_read_ahead **ret_ahead)
{
    struct fl_read_ahead *ahead = calloc(1, sizeof(*ahead));
    if (!ahead)
        return -ENOMEM;
    ahead->end = &ahead->first;
    CDS_INIT_LIST_HEAD(&ahead->planned);
    int error = fl_mailbox_init(&ahead->mailbox);
    if (error) {
        free(ahead);
        return error;
    }
    fl_extent_reads_init(&ahead->reads, cache, &ahead->mailbox);
    error = -pthread_create(&ahead->thread, NULL, ahead_main, ahead);
    if (error) {
        fl_read_ahead_free(ahead);
        return error;
    }
    *ret_ahead = ahead;
    return 0;
}

static void stop_asked(void *owner, struct fl_mail *mail)
{
    (void)mail;
    ((struct fl_read_ahead *)owner)->stopping = true;
}

void fl_read_ahead_stop(struct fl_read_ahead *ahead)
{
    struct fl_mail mail = {.deliver = stop_asked};
    fl_mailbox_post(&ahead->mailbox, &mail);
    pthread_join(ahead->thread, NULL);
}
