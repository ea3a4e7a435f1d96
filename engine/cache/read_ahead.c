// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/read_ahead.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"
#include "engine/base/dontdump.h"
#include "engine/base/log.h"
#include "engine/base/mailbox.h"
#include "engine/cache/extent.h"
#include "engine/cache/frame_load.h"
#include "engine/cache/uring.h"

enum {
    BATCH = 128,    // parts that are looked at together
    IN_FLIGHT = 32, // extents being read or decompressed, each with a buffer
    HELPERS = 4,
    FRAMES_A_HELPER = 8,
};
#define BYTES_IN_FLIGHT ((size_t)32 << 20)
#define BUFFER_BYTES ((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE) // the largest frame, uncompressed

struct helper {
    struct fl_io_job job;
    struct extent *extent;
};

// Free, planned, then in flight: being read, then decompressed by helpers. The last of these mails
// it back.
//
// It is the read-ahead thread's but in flight, when it is its reader's (the ring, or one reader
// thread), then its helpers'. Each of `part` comes with a reference to its load, which the helper
// that takes its turn gives up.
struct extent {
    struct cds_list_head link; // free or planned
    struct fl_mail mail;
    struct fl_read_ahead *ahead;
    int fd;
    uint32_t bytes;
    uint64_t offset;
    uint32_t done;   // bytes read so far
    int error;       // why it did not come
    uint8_t *buffer; // while it is in flight
    unsigned parts;
    struct fl_part *part[FL_EXTENT_FRAMES]; // with a reference to the load of each
    _Atomic unsigned next;
    _Atomic unsigned running; // helpers
    struct helper reader;     // without io_uring
    struct helper helper[HELPERS];
};

struct fl_read_ahead {
    struct fl_cache *cache;
    pthread_t thread;
    struct fl_mailbox mailbox; // any thread
    // The thread's own:
    struct fl_uring *ring; // NULL: the reader threads read
    bool stopping;
    struct fl_part *first; // waiting, in order of use
    struct fl_part **end;
    struct cds_list_head free;
    struct cds_list_head planned;
    unsigned free_extents;
    unsigned in_flight;
    size_t bytes_in_flight;
    unsigned buffers;
    uint8_t *buffer[IN_FLIGHT]; // not in use
    struct extent extent[BATCH];
};

// --- extents that are read ---

static void drop_part(struct fl_part *part)
{
    fl_load_unref(part->load);
}

static void put_free(struct fl_read_ahead *ahead, struct extent *extent)
{
    cds_list_add(&extent->link, &ahead->free);
    ahead->free_extents++;
}

static void returned(void *owner, struct fl_mail *mail)
{
    struct fl_read_ahead *ahead = owner;
    struct extent *extent = caa_container_of(mail, struct extent, mail);
    if (extent->buffer)
        ahead->buffer[ahead->buffers++] = extent->buffer;
    extent->buffer = NULL;
    ahead->in_flight--;
    ahead->bytes_in_flight -= extent->bytes;
    put_free(ahead, extent);
}

// A frame at a time, so that what somebody wants has to wait for no more than that.
static uint64_t run_helper(struct fl_io_job *job)
{
    struct extent *extent = caa_container_of(job, struct helper, job)->extent;
    struct fl_read_ahead *ahead = extent->ahead;
    unsigned at;
    while ((at = atomic_fetch_add(&extent->next, 1)) < extent->parts) {
        struct fl_part *part = extent->part[at];
        fl_part_bring(part, extent->error ? NULL
                                          : extent->buffer + (part->place.offset - extent->offset));
        drop_part(part);
        if (fl_io_pool_hurries(ahead->cache->pool))
            return FL_IO_YIELD;
    }
    if (atomic_fetch_sub(&extent->running, 1) == 1)
        fl_mailbox_post(&ahead->mailbox, &extent->mail);
    return 0;
}

// It has come, or it has not: then its frames are read one by one.
static void ended(struct extent *extent, int error)
{
    struct fl_cache *cache = extent->ahead->cache;
    unsigned helpers = (extent->parts + FRAMES_A_HELPER - 1) / FRAMES_A_HELPER;
    helpers = helpers < HELPERS ? helpers : HELPERS;
    extent->error = error;
    atomic_store(&extent->next, 0);
    atomic_store(&extent->running, helpers);
    if (error) {
        atomic_fetch_add(&cache->ahead_errors, 1);
    } else {
        atomic_fetch_add(&cache->ahead_extents, 1);
        atomic_fetch_add(&cache->ahead_bytes, extent->bytes);
    }
    for (unsigned i = 0; i < helpers; i++)
        fl_io_pool_submit_later(cache->pool, &extent->helper[i].job);
}

// Without io_uring: the same read in a reader thread.
static uint64_t run_reader(struct fl_io_job *job)
{
    struct extent *extent = caa_container_of(job, struct helper, job)->extent;
    while (extent->done < extent->bytes) {
        ssize_t got = pread(extent->fd, extent->buffer + extent->done, extent->bytes - extent->done,
                            (off_t)(extent->offset + extent->done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            ended(extent, got < 0 ? -errno : -EIO);
            return 0;
        }
        extent->done += (uint32_t)got;
    }
    ended(extent, 0);
    return 0;
}

static void read_rest(struct extent *extent)
{
    fl_uring_read(extent->ahead->ring, extent->fd, extent->buffer + extent->done,
                  extent->bytes - extent->done, extent->offset + extent->done, extent);
}

static void read_ended(void *arg, void *user, int result)
{
    struct extent *extent = user;
    (void)arg;
    if (result > 0)
        extent->done += (uint32_t)result;
    if (result <= 0 && result != -EINTR)
        ended(extent, result < 0 ? result : -EIO);
    else if (extent->done < extent->bytes)
        read_rest(extent);
    else
        ended(extent, 0);
}

// --- extents that are planned ---

static struct extent *first_planned(struct fl_read_ahead *ahead)
{
    return cds_list_first_entry(&ahead->planned, struct extent, link);
}

// What somebody has come to want meanwhile is being read already.
static void drop_taken(struct extent *extent)
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

static uint8_t *get_buffer(struct fl_read_ahead *ahead)
{
    return ahead->buffers > 0 ? ahead->buffer[--ahead->buffers] : fl_dontdump_map(BUFFER_BYTES);
}

static void start_reading(struct fl_read_ahead *ahead, struct extent *extent)
{
    extent->done = 0;
    extent->buffer = get_buffer(ahead);
    ahead->in_flight++;
    ahead->bytes_in_flight += extent->bytes;
    if (!extent->buffer)
        ended(extent, -ENOMEM);
    else if (ahead->ring)
        read_rest(extent);
    else
        fl_io_pool_submit_later(ahead->cache->pool, &extent->reader.job);
}

static bool issue(struct fl_read_ahead *ahead)
{
    bool any = false;
    while (!cds_list_empty(&ahead->planned) && ahead->in_flight < IN_FLIGHT) {
        struct extent *extent = first_planned(ahead);
        if (ahead->in_flight > 0 && ahead->bytes_in_flight + extent->bytes > BYTES_IN_FLIGHT)
            break;
        cds_list_del(&extent->link);
        drop_taken(extent);
        if (extent->parts > 0)
            start_reading(ahead, extent);
        else
            put_free(ahead, extent);
        any = true;
    }
    return any;
}

// --- parts that wait ---

static void append(struct fl_read_ahead *ahead, struct fl_part *part)
{
    part->next = NULL;
    *ahead->end = part;
    ahead->end = &part->next;
}

static struct fl_part *pop(struct fl_read_ahead *ahead)
{
    struct fl_part *part = ahead->first;
    ahead->first = part->next;
    if (!ahead->first)
        ahead->end = &ahead->first;
    return part;
}

static void asked(void *owner, struct fl_mail *mail)
{
    struct fl_read_ahead *ahead = owner;
    struct fl_load *load = caa_container_of(mail, struct fl_load, mail);
    while (load) {
        struct fl_load *next = load->next;
        if (!atomic_load(&load->hurried) && fl_load_plan(load)) {
            FL_CRASH_POINT("load_planned");
            for (uint32_t i = 0; i < load->parts; i++) {
                atomic_fetch_add(&load->refs, 1);
                append(ahead, &load->part[i]);
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
    struct extent *extent = cds_list_first_entry(&ahead->free, struct extent, link);
    cds_list_del(&extent->link);
    ahead->free_extents--;
    extent->fd = planned->fd;
    extent->bytes = planned->bytes;
    extent->offset = planned->offset;
    extent->parts = planned->count;
    for (unsigned i = 0; i < planned->count; i++)
        extent->part[i] = item[planned->first + i].user;
    cds_list_add_tail(&extent->link, &ahead->planned);
}

// The next parts in order of use, when all that were planned before are on their way.
static bool plan(struct fl_read_ahead *ahead)
{
    struct fl_extent_item item[BATCH];
    struct fl_extent extent[BATCH];
    unsigned items = 0;
    if (!ahead->first || !cds_list_empty(&ahead->planned) || ahead->free_extents == 0 ||
        ahead->in_flight == IN_FLIGHT)
        return false;
    while (ahead->first && items < ahead->free_extents) {
        struct fl_part *part = pop(ahead);
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

static void cancel(struct fl_read_ahead *ahead)
{
    while (ahead->first) {
        struct fl_part *part = pop(ahead);
        fl_part_cancel(part);
        drop_part(part);
    }
    while (!cds_list_empty(&ahead->planned)) {
        struct extent *extent = first_planned(ahead);
        cds_list_del(&extent->link);
        for (unsigned i = 0; i < extent->parts; i++) {
            fl_part_cancel(extent->part[i]);
            drop_part(extent->part[i]);
        }
        put_free(ahead, extent);
    }
}

static void free_buffers(struct fl_read_ahead *ahead)
{
    while (ahead->buffers > 0)
        fl_dontdump_unmap(ahead->buffer[--ahead->buffers], BUFFER_BYTES);
}

static void wait_for_work(struct fl_read_ahead *ahead)
{
    struct pollfd poll_fd = {.fd = ahead->mailbox.event_fd, .events = POLLIN};
    if (ahead->in_flight == 0)
        free_buffers(ahead);
    if (!fl_mailbox_sleep(&ahead->mailbox))
        return;
    if (ahead->ring)
        fl_uring_turn(ahead->ring, true, read_ended, NULL);
    else
        poll(&poll_fd, 1, -1);
    fl_mailbox_awake(&ahead->mailbox);
}

static void *ahead_main(void *argument)
{
    struct fl_read_ahead *ahead = argument;
    pthread_setname_np(pthread_self(), "fl-ahead");
    rcu_register_thread();
    fl_rcu_offline(); // all it holds, it holds by references
    while (!ahead->stopping || ahead->in_flight > 0) {
        bool busy = fl_mailbox_drain(&ahead->mailbox, ahead);
        if (ahead->stopping)
            cancel(ahead);
        busy |= plan(ahead);
        busy |= issue(ahead);
        if (ahead->ring)
            busy |= fl_uring_turn(ahead->ring, false, read_ended, NULL);
        if (!busy && !(ahead->stopping && ahead->in_flight == 0))
            wait_for_work(ahead);
    }
    free_buffers(ahead);
    fl_rcu_online();
    rcu_unregister_thread();
    return NULL;
}

void fl_read_ahead_ask(struct fl_read_ahead *ahead, struct fl_load *first)
{
    first->mail.deliver = asked;
    fl_mailbox_post(&ahead->mailbox, &first->mail);
}

static void prepare(struct fl_read_ahead *ahead)
{
    ahead->end = &ahead->first;
    CDS_INIT_LIST_HEAD(&ahead->free);
    CDS_INIT_LIST_HEAD(&ahead->planned);
    for (unsigned i = 0; i < BATCH; i++) {
        struct extent *extent = &ahead->extent[i];
        extent->ahead = ahead;
        extent->mail.deliver = returned;
        extent->reader = (struct helper){.job.run = run_reader, .extent = extent};
        for (unsigned k = 0; k < HELPERS; k++)
            extent->helper[k] = (struct helper){.job.run = run_helper, .extent = extent};
        put_free(ahead, extent);
    }
}

static void open_ring(struct fl_read_ahead *ahead)
{
    int error = fl_uring_open(ahead->mailbox.event_fd, IN_FLIGHT, &ahead->ring);
    ahead->cache->io = error ? "threads" : "io_uring";
    if (error)
        fl_log(FL_LOG_INFO,
               "event=io_threads reason=\"io_uring is not to be had (%s): read-ahead "
               "goes through the reader threads\"",
               strerror(-error)); // NOLINT(concurrency-mt-unsafe)
}

void fl_read_ahead_free(struct fl_read_ahead *ahead)
{
    if (ahead->ring)
        fl_uring_close(ahead->ring);
    fl_mailbox_fini(&ahead->mailbox);
    free(ahead);
}

int fl_read_ahead_start(struct fl_cache *cache, struct fl_read_ahead **ret_ahead)
{
    struct fl_read_ahead *ahead = calloc(1, sizeof(*ahead));
    if (!ahead)
        return -ENOMEM;
    ahead->cache = cache;
    prepare(ahead);
    int error = fl_mailbox_init(&ahead->mailbox);
    if (error) {
        free(ahead);
        return error;
    }
    open_ring(ahead);
    error = -pthread_create(&ahead->thread, NULL, ahead_main, ahead);
    if (error) {
        fl_read_ahead_free(ahead);
        return error;
    }
    *ret_ahead = ahead;
    return 0;
}

static void stop(void *owner, struct fl_mail *mail)
{
    (void)mail;
    ((struct fl_read_ahead *)owner)->stopping = true;
}

void fl_read_ahead_stop(struct fl_read_ahead *ahead)
{
    struct fl_mail mail = {.deliver = stop};
    fl_mailbox_post(&ahead->mailbox, &mail);
    pthread_join(ahead->thread, NULL);
}
