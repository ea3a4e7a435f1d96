// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/extent_reads.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/dontdump.h"
#include "engine/base/log.h"

enum { FRAMES_A_HELPER = 8 };
#define BYTES_IN_FLIGHT ((size_t)32 << 20)
#define IDLE_FOR FL_NS_PER_S
#define BUFFER_BYTES ((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE) // the largest frame, uncompressed

// --- free ones ---

struct fl_extent_read *fl_extent_reads_take(struct fl_extent_reads *reads)
{
    struct fl_extent_read *extent = cds_list_first_entry(&reads->free, struct fl_extent_read, link);
    cds_list_del(&extent->link);
    reads->free_extents--;
    return extent;
}

void fl_extent_reads_put(struct fl_extent_reads *reads, struct fl_extent_read *extent)
{
    cds_list_add(&extent->link, &reads->free);
    reads->free_extents++;
}

// The mail of the last helper.
static void extent_returned(void *owner, struct fl_mail *mail)
{
    struct fl_extent_read *extent = caa_container_of(mail, struct fl_extent_read, mail);
    struct fl_extent_reads *reads = extent->reads;
    (void)owner;
    if (extent->buffer)
        reads->buffer[reads->buffers++] = extent->buffer;
    extent->buffer = NULL;
    reads->in_flight--;
    reads->bytes_in_flight -= extent->bytes;
    fl_extent_reads_put(reads, extent);
}

// --- in flight ---

// A frame at a time, so that a frame that a VM waits for has to wait for no more than that.
static uint64_t run_helper(struct fl_io_job *job)
{
    struct fl_extent_read *extent = caa_container_of(job, struct fl_extent_job, job)->extent;
    struct fl_extent_reads *reads = extent->reads;
    unsigned at;
    while ((at = atomic_fetch_add(&extent->next, 1)) < extent->parts) {
        struct fl_part *part = extent->part[at];
        fl_part_bring(part, extent->error ? NULL
                                          : extent->buffer + (part->place.offset - extent->offset));
        fl_load_unref(part->load);
        if (fl_io_pool_hurries(reads->cache->pool))
            return FL_IO_YIELD;
    }
    if (atomic_fetch_sub(&extent->running, 1) == 1)
        fl_mailbox_post(reads->mailbox, &extent->mail);
    return 0;
}

// It has come, or it has not: then its frames are read one by one.
static void extent_ended(struct fl_extent_read *extent, int error)
{
    struct fl_cache *cache = extent->reads->cache;
    unsigned helpers = (extent->parts + FRAMES_A_HELPER - 1) / FRAMES_A_HELPER;
    helpers = helpers < FL_EXTENT_HELPERS ? helpers : FL_EXTENT_HELPERS;
    extent->error = error;
    atomic_store(&extent->next, 0);
    atomic_store(&extent->running, helpers);
    if (error) {
        atomic_fetch_add(&cache->counts->ahead_errors, 1);
    } else {
        atomic_fetch_add(&cache->counts->ahead_extents, 1);
        atomic_fetch_add(&cache->counts->ahead_bytes, extent->bytes);
    }
    for (unsigned i = 0; i < helpers; i++)
        fl_io_pool_submit_later(cache->pool, &extent->helper[i].job);
}

// Without io_uring: the same read in a reader thread.
static uint64_t run_reader(struct fl_io_job *job)
{
    struct fl_extent_read *extent = caa_container_of(job, struct fl_extent_job, job)->extent;
    while (extent->done < extent->bytes) {
        ssize_t got = pread(extent->fd, extent->buffer + extent->done, extent->bytes - extent->done,
                            (off_t)(extent->offset + extent->done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            extent_ended(extent, got < 0 ? -errno : -EIO);
            return 0;
        }
        extent->done += (uint32_t)got;
    }
    extent_ended(extent, 0);
    return 0;
}

static void read_rest(struct fl_extent_read *extent)
{
    fl_uring_read(extent->reads->ring, extent->fd, extent->buffer + extent->done,
                  extent->bytes - extent->done, extent->offset + extent->done, extent);
}

static void read_ended(void *arg, void *user, int result)
{
    struct fl_extent_read *extent = user;
    (void)arg;
    if (result > 0)
        extent->done += (uint32_t)result;
    if (result <= 0 && result != -EINTR)
        extent_ended(extent, result < 0 ? result : -EIO);
    else if (extent->done < extent->bytes)
        read_rest(extent);
    else
        extent_ended(extent, 0);
}

static uint8_t *get_buffer(struct fl_extent_reads *reads)
{
    return reads->buffers > 0 ? reads->buffer[--reads->buffers] : fl_dontdump_map(BUFFER_BYTES);
}

bool fl_extent_reads_have_room(const struct fl_extent_reads *reads, uint32_t bytes)
{
    return reads->in_flight == 0 || (reads->in_flight < FL_EXTENT_READS_IN_FLIGHT &&
                                     reads->bytes_in_flight + bytes <= BYTES_IN_FLIGHT);
}

void fl_extent_reads_start(struct fl_extent_reads *reads, struct fl_extent_read *extent)
{
    extent->done = 0;
    extent->buffer = get_buffer(reads);
    reads->used = true;
    reads->in_flight++;
    reads->bytes_in_flight += extent->bytes;
    if (!extent->buffer)
        extent_ended(extent, -ENOMEM);
    else if (reads->ring)
        read_rest(extent);
    else
        fl_io_pool_submit_later(reads->cache->pool, &extent->reader.job);
}

// --- the thread's turns ---

bool fl_extent_reads_turn(struct fl_extent_reads *reads)
{
    return reads->ring && fl_uring_turn(reads->ring, false, read_ended, NULL);
}

void fl_extent_reads_wait(struct fl_extent_reads *reads)
{
    struct pollfd poll_fd = {.fd = reads->mailbox->event_fd, .events = POLLIN};
    if (reads->ring)
        fl_uring_turn(reads->ring, true, read_ended, NULL);
    else
        poll(&poll_fd, 1, -1);
}

void fl_extent_reads_free_buffers(struct fl_extent_reads *reads)
{
    while (reads->buffers > 0)
        fl_dontdump_unmap(reads->buffer[--reads->buffers], BUFFER_BYTES);
}

static uint64_t run_idle(struct fl_io_job *job)
{
    struct fl_extent_reads *reads = caa_container_of(job, struct fl_extent_reads, idle_job);
    fl_mailbox_post(reads->mailbox, &reads->idle_mail);
    return 0;
}

static void idle_is_over(void *owner, struct fl_mail *mail)
{
    struct fl_extent_reads *reads = caa_container_of(mail, struct fl_extent_reads, idle_mail);
    (void)owner;
    reads->idle_asked = false;
    if (!reads->used)
        fl_extent_reads_free_buffers(reads);
}

void fl_extent_reads_idle(struct fl_extent_reads *reads)
{
    if (reads->buffers == 0 || reads->idle_asked)
        return;
    reads->idle_asked = true;
    reads->used = false;
    fl_io_pool_submit_at(reads->cache->pool, &reads->idle_job, fl_now() + IDLE_FOR);
}

static void open_ring(struct fl_extent_reads *reads)
{
    int error = fl_uring_open(reads->mailbox->event_fd, FL_EXTENT_READS_IN_FLIGHT, &reads->ring);
    reads->cache->io = error ? "threads" : "io_uring";
    if (error)
        fl_log(FL_LOG_INFO,
               "event=io_threads reason=\"io_uring is not available (%s): the reader threads read "
               "ahead\"",
               strerror(-error)); // NOLINT(concurrency-mt-unsafe)
}

void fl_extent_reads_init(struct fl_extent_reads *reads, struct fl_cache *cache,
                          struct fl_mailbox *mailbox)
{
    reads->cache = cache;
    reads->mailbox = mailbox;
    reads->idle_job.run = run_idle;
    reads->idle_mail.deliver = idle_is_over;
    CDS_INIT_LIST_HEAD(&reads->free);
    for (unsigned i = 0; i < FL_EXTENT_READS; i++) {
        struct fl_extent_read *extent = &reads->extent[i];
        extent->reads = reads;
        extent->mail.deliver = extent_returned;
        extent->reader = (struct fl_extent_job){.job.run = run_reader, .extent = extent};
        for (unsigned k = 0; k < FL_EXTENT_HELPERS; k++)
            extent->helper[k] = (struct fl_extent_job){.job.run = run_helper, .extent = extent};
        fl_extent_reads_put(reads, extent);
    }
    open_ring(reads);
}

void fl_extent_reads_fini(struct fl_extent_reads *reads)
{
    if (reads->ring)
        fl_uring_close(reads->ring);
}
