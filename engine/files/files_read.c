// SPDX-License-Identifier: Apache-2.0
//
// READ: bytes of an image, from frames of the cache, at any alignment.
//
// Theory of operation. A READ looks up every frame that its pages need and pins it; for those that
// are not there it leaves a waiter with the cache, and the thread goes on with other calls. When
// the last waiter has come (by mail) it looks again, as a piece of the map may have been among
// them, and answers with the bytes as they lie in the frames. The answer has the full length or
// is an error: after a short one the kernel would give SIGBUS for all that follows in the file.
//
// A fault that may pass (a disk that fails, memory that is short) holds the READ back, as a page
// that is asked for alone is asked for twice only. After --read-timeout it is given up. A call
// that was answered before its end, as its caller was killed, stays until its waiters have come.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/cache/frame.h"
#include "engine/cache/frame_cache.h"
#include "engine/files/files_internal.h"
#include "snapshot/read.h"

// Each page may be in a frame of its own, and in a piece of the map of its own.
enum { SLOTS = 2 * FL_FUSE_PAGES_MOST, PARTS = 1 + FL_FUSE_PAGES_MOST, PAUSES_DOUBLED = 6 };
#define FIRST_PAUSE (10 * FL_NS_PER_MS)
// The kernel asks for pages that cannot be had two or three times, in smaller pieces. It is one
// failure, and what was waited for once is waited for only shortly then. That goes for whoever
// asks: VMs that wait for one page ask for it one after the other, each when the one before has
// failed, and the last of a hundred would wait a hundred times --read-timeout. Each is tried anew
// all the same, and has the page if that can be had again.
#define ASKED_AGAIN (2 * FL_NS_PER_S)
enum { ASKED_AGAIN_PART = 10 };

struct slot {
    struct fl_waiter waiter;
    struct fl_frame_id id;
};

struct read {
    struct fl_files_call call;
    uint64_t node;
    struct fl_image *image; // a reference; NULL: its node waits for it
    uint64_t offset;
    uint32_t size;
    int error;         // of a frame; the first
    unsigned attempts; // that have failed
    uint64_t again_ns; // 0: it is not held back
    unsigned outstanding;
    unsigned slots;
    bool waited;
    struct slot *slot; // [SLOTS]; NULL: it waits for its turn
};

static void step(struct read *read);

static struct read *read_of(struct fl_files_call *call)
{
    return caa_container_of(call, struct read, call);
}

static void unpin_all(struct read *read)
{
    for (unsigned i = 0; i < read->slots; i++) {
        if (read->slot[i].waiter.frame)
            fl_frame_unpin(read->slot[i].waiter.frame);
    }
    read->slots = 0;
}

static void free_slots(struct read *read)
{
    read->call.files->reads_now -= read->slot != NULL;
    free(read->slot);
}

static void free_read(struct read *read)
{
    unpin_all(read);
    free_slots(read);
    fl_files_call_end(&read->call);
    fl_image_unref(read->image);
    free(read);
}

static void leave_read(struct fl_files_call *call)
{
    if (read_of(call)->outstanding == 0)
        free_read(read_of(call));
}

// --- frames ---

static void frame_came(void *owner, struct fl_mail *mail)
{
    (void)owner;
    struct fl_waiter *waiter = caa_container_of(mail, struct fl_waiter, mail);
    struct read *read = waiter->user;
    read->outstanding--;
    if (waiter->error && !read->error)
        read->error = waiter->error;
    if (read->outstanding > 0)
        return;
    if (read->call.answered)
        free_read(read);
    else
        step(read);
}

static const struct slot *find_slot(const struct read *read, struct fl_frame_id id)
{
    for (unsigned i = 0; i < read->slots; i++) {
        if (read->slot[i].id.pack == id.pack && read->slot[i].id.frame == id.frame)
            return &read->slot[i];
    }
    return NULL;
}

// 0: it is there, or will come; -ENOMEM.
static int want(struct read *read, struct fl_frame_id id)
{
    if (find_slot(read, id))
        return 0;
    if (read->slots == SLOTS)
        return -ENOMEM;
    struct fl_files *files = read->call.files;
    struct slot *slot = &read->slot[read->slots];
    *slot = (struct slot){.id = id};
    slot->waiter.mail.deliver = frame_came;
    slot->waiter.box = &files->mailbox;
    slot->waiter.user = read;
    int result =
        fl_cache_want(files->options.cache, read->image, id, &slot->waiter, &slot->waiter.frame);
    if (result < 0)
        return result;
    read->slots++;
    read->outstanding += result == 0;
    read->waited |= result == 0;
    return 0;
}

// Has all frames come; what is not there is outstanding after this.
static int want_all(struct read *read)
{
    uint64_t page = read->offset >> FL_PAGE_SHIFT;
    uint64_t end = (read->offset + read->size + FL_PAGE_SIZE - 1) >> FL_PAGE_SHIFT;
    while (page < end) {
        struct fl_run run = fl_image_run(read->image, page, (uint32_t)(end - page));
        int error = run.zero ? 0 : want(read, run.id);
        if (error)
            return error;
        page += run.pages;
    }
    return 0;
}

// --- answers ---

// The parts of the answer, as they lie in the frames. The number of parts; 0: something is not
// there, as a piece of the map has only just come.
static int gather(const struct read *read, struct iovec iov[PARTS])
{
    uint64_t at = read->offset;
    uint64_t end = read->offset + read->size;
    int count = 1;
    while (at < end) {
        uint64_t page = at >> FL_PAGE_SHIFT;
        size_t within = at & (FL_PAGE_SIZE - 1);
        uint64_t last = (end + FL_PAGE_SIZE - 1) >> FL_PAGE_SHIFT;
        struct fl_run run = fl_image_run(read->image, page, (uint32_t)(last - page));
        const struct slot *slot = run.zero || run.unread ? NULL : find_slot(read, run.id);
        const uint8_t *from = read->call.files->zeros;
        if (!run.zero && !(slot && slot->waiter.frame))
            return 0;
        if (slot)
            from = fl_frame_data(slot->waiter.frame) + ((size_t)run.slot << FL_PAGE_SHIFT) + within;
        uint64_t bytes = ((uint64_t)run.pages << FL_PAGE_SHIFT) - within;
        bytes = bytes < end - at ? bytes : end - at;
        iov[count++] = (struct iovec){(void *)(uintptr_t)from, bytes};
        at += bytes;
    }
    return count;
}

static void answer(struct read *read, struct iovec *iov, int parts)
{
    struct fl_files *files = read->call.files;
    struct fl_files_counts *counts = files->options.counts;
    FL_CRASH_POINT("files_answer");
    read->call.answered = true;
    int result = fl_fuse_answer_parts(files->device, read->call.unique, iov, parts);
    FL_CRASH_POINT("files_answered");
    if (fl_files_answered(files, result)) {
        atomic_fetch_add(&counts->reads, 1);
        atomic_fetch_add(&counts->bytes, read->size);
        atomic_fetch_add(&counts->waited, read->waited);
    } else if (result != -ENOENT && result != -ENODEV) {
        fl_files_answer(files, read->call.unique, -EIO, NULL, 0);
    }
    free_read(read);
}

static bool failed_before(const struct fl_files *files, const struct read *read)
{
    uint64_t first = read->offset >> FL_PAGE_SHIFT;
    uint64_t end = (read->offset + read->size + FL_PAGE_SIZE - 1) >> FL_PAGE_SHIFT;
    for (unsigned i = 0; i < FL_FILES_FAILED; i++) {
        const struct fl_files_failed *failed = &files->failed[i];
        if (failed->node == read->node && failed->until_ns > files->now && first < failed->end &&
            failed->first < end)
            return true;
    }
    return false;
}

// True the first time.
static bool is_news(struct fl_files *files, const struct read *read)
{
    if (failed_before(files, read))
        return false;
    files->failed[files->next_failed++ % FL_FILES_FAILED] = (struct fl_files_failed){
        read->node, read->offset >> FL_PAGE_SHIFT,
        (read->offset + read->size + FL_PAGE_SIZE - 1) >> FL_PAGE_SHIFT, files->now + ASKED_AGAIN};
    return true;
}

static void note_failure(struct read *read, int error)
{
    struct fl_files *files = read->call.files;
    if (!is_news(files, read))
        return;
    uint64_t times = atomic_fetch_add(&files->options.counts->failed, 1) + 1;
    if ((times & (times - 1)) == 0) // a bad pack must not flood the log
        fl_log(FL_LOG_ERROR,
               "event=file_failed image=%s image_page=%" PRIu64 " times=%" PRIu64
               " reason=\"its frame %s\"",
               read->image ? fl_image_name(read->image) : "-", read->offset >> FL_PAGE_SHIFT, times,
               error == -ETIMEDOUT ? "did not come in time (--read-timeout)"
                                   : fl_frame_strerror(error));
}

// It may be better in a while: the disk, memory. What is damaged stays so.
static bool may_pass(int error)
{
    return error != -EBADMSG && error != -EINVAL && error != -EOWNERDEAD &&
           error != -EPROTONOSUPPORT && error != -ESTALE;
}

static void note_late(struct fl_files_call *call)
{
    note_failure(read_of(call), -ETIMEDOUT);
}

static void fail(struct read *read, int error)
{
    struct fl_files *files = read->call.files;
    uint64_t limit = read->call.since_ns + files->options.read_timeout_ms * FL_NS_PER_MS;
    if (may_pass(error) && files->now < limit) {
        unsigned doubled = read->attempts < PAUSES_DOUBLED ? read->attempts : PAUSES_DOUBLED;
        unpin_all(read);
        read->error = 0;
        read->attempts++;
        read->again_ns = files->now + (FIRST_PAUSE << doubled);
        atomic_fetch_add(&files->options.counts->held, 1);
        return;
    }
    note_failure(read, error);
    fl_files_call_answer(&read->call, -EIO, NULL, 0);
    free_read(read);
}

// READs of a disk that hangs may be many: those that have no turn are small, so that the kernel is
// still listened to. False without one.
static bool takes_turn(struct read *read)
{
    struct fl_files *files = read->call.files;
    if (!read->slot && files->reads_now < FL_FILES_READS_MOST)
        read->slot = calloc(SLOTS, sizeof(*read->slot));
    else if (read->slot)
        return true;
    files->reads_now += read->slot != NULL;
    return read->slot != NULL;
}

// Goes on with a READ of which nothing is outstanding.
static void step(struct read *read)
{
    if (!takes_turn(read)) {
        read->again_ns = read->call.files->now + FIRST_PAUSE;
        return;
    }
    struct iovec iov[PARTS];
    int parts = 0;
    int error = read->error;
    while (!error && parts == 0) {
        error = want_all(read);
        if (read->outstanding > 0) {
            read->error = error;
            return;
        }
        parts = error ? 0 : gather(read, iov);
    }
    read->error = error;
    if (error)
        fail(read, error);
    else
        answer(read, iov, parts);
}

// --- beginning and going on ---

static void begin(struct read *read, const struct fl_files_node *node)
{
    uint64_t bytes = node->entry->bytes;
    if (node->error) {
        note_failure(read, node->error);
        fl_files_call_answer(&read->call, -EIO, NULL, 0);
        free_read(read);
        return;
    }
    if (!node->held) // fl_files_reads_go_on()
        return;
    read->image = fl_image_ref(node->held->image);
    read->size = read->offset >= bytes               ? 0
                 : bytes - read->offset < read->size ? (uint32_t)(bytes - read->offset)
                                                     : read->size;
    if (read->size > 0) {
        step(read);
        return;
    }
    fl_files_call_answer(&read->call, 0, NULL, 0);
    free_read(read);
}

void fl_files_read(struct fl_files *files, const struct fuse_in_header *in,
                   const struct fuse_read_in *arg)
{
    uint64_t limit = files->options.read_timeout_ms * FL_NS_PER_MS;
    const struct fl_files_node *node = fl_files_node_find(files, in->nodeid);
    struct read *read = node && arg->size <= FL_FUSE_READ_MOST ? calloc(1, sizeof(*read)) : NULL;
    if (!read) {
        fl_files_answer(files, in->unique, node ? -ENOMEM : -ESTALE, NULL, 0);
        return;
    }
    read->call.leave = leave_read;
    read->call.late = note_late;
    read->node = in->nodeid;
    read->offset = arg->offset;
    read->size = arg->size;
    fl_files_call_begin(files, &read->call, in);
    if (failed_before(files, read))
        read->call.since_ns -= limit - limit / ASKED_AGAIN_PART;
    begin(read, node);
}

void fl_files_reads_go_on(struct fl_files *files, struct fl_files_node *node)
{
    struct fl_files_call *call;
    struct fl_files_call *next;
    uint64_t id = node->entry->id;
    cds_list_for_each_entry_safe(call, next, &files->calls, link)
    {
        if (call->leave == leave_read && !call->answered && !read_of(call)->image &&
            read_of(call)->node == id)
            begin(read_of(call), node);
    }
}

// A READ that is tried again may be gone, or held back once more, after this.
static void try_again(struct fl_files *files)
{
    struct fl_files_call *call;
    struct fl_files_call *next;
    cds_list_for_each_entry_safe(call, next, &files->calls, link)
    {
        struct read *read = read_of(call);
        if (call->leave != leave_read || read->again_ns == 0 || read->again_ns > files->now)
            continue;
        read->again_ns = 0;
        step(read);
    }
}

uint64_t fl_files_reads_due(struct fl_files *files)
{
    const struct fl_files_call *call;
    uint64_t due = FL_NEVER;
    try_again(files);
    cds_list_for_each_entry(call, &files->calls, link)
    {
        const struct read *read = caa_container_of(call, struct read, call);
        if (call->leave == leave_read && read->again_ns > 0 && read->again_ns < due)
            due = read->again_ns;
    }
    return due;
}

void fl_files_reads_free(struct fl_files *files)
{
    struct fl_files_call *call;
    struct fl_files_call *next;
    cds_list_for_each_entry_safe(call, next, &files->calls, link)
    {
        if (call->leave != leave_read)
            continue;
        cds_list_del(&call->link);
        free_slots(read_of(call));
        fl_image_unref(read_of(call)->image);
        free(read_of(call));
    }
}
