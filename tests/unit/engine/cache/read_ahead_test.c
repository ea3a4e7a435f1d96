// SPDX-License-Identifier: Apache-2.0
//
// Read-ahead on a disk that is slow, or damaged, and a cache that is full or ends. Large reads go
// through a gate of the test's own: while it is shut none of them comes back, and what somebody
// wants must come all the same.
//
// read_ahead_test [threads]: with "threads" the read-ahead has no io_uring.
// This file has calls of the C library of its own, which hardened headers define as inline
// functions.
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include <liburing.h>

#include "engine/base/io_pool.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "tests/support/no_io_uring.h"

enum {
    FRAME_BYTES = FL_FRAME_PAGES * FL_PAGE_SIZE,
    LARGE = 2 * FRAME_BYTES, // what goes through the gate; a frame by itself does not
    FRAMES = 128,            // of most images here
    MANY = 1024,             // more than can be on their way at once
    HUGE_PAGES = 512,
    DEADLINE_S = 60,
};

static void die(const char *what)
{
    fprintf(stderr, "read_ahead_test: %s\n", what);
    _exit(1);
}

static time_t deadline;

static void check_time(const char *what)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec > deadline)
        die(what);
    sched_yield();
}

// Time goes on by so much more for all of the process.
static _Atomic time_t later;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long result = syscall(SYS_clock_gettime, clock, time);
    time->tv_sec += atomic_load(&later);
    return (int)result;
}

static void set_deadline(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    deadline = now.tv_sec + DEADLINE_S;
}

// --- the gate ---

static atomic_bool shut;
static atomic_uint held; // reads, or submissions of reads, that came while it was shut

ssize_t pread(int fd, void *buf, size_t size, off_t offset)
{
    if (size >= LARGE && atomic_load(&shut)) {
        atomic_fetch_add(&held, 1);
        while (atomic_load(&shut))
            usleep(100);
    }
    return syscall(SYS_pread64, fd, buf, size, offset);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    static int (*real)(struct io_uring *, unsigned);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");
    if (!atomic_load(&shut))
        return real(ring, wait);
    atomic_fetch_add(&held, io_uring_sq_ready(ring) > 1); // one is for being woken
    usleep(100);
    return 0;
}

static void shut_gate(void)
{
    atomic_store(&held, 0);
    atomic_store(&shut, true);
}

static void await_held(void)
{
    while (atomic_load(&held) == 0)
        check_time("no large read was tried");
}

// --- a cache and an image ---

enum { UNUSED_S = 6 }; // what came ahead and was not used for so long has aged

static void go_on(time_t seconds)
{
    atomic_fetch_add(&later, seconds);
    set_deadline();
}

static struct fl_io_pool *pool;
static struct fl_cache *cache;
static struct fl_mailbox box;
static struct fl_image *image;
static char path[64];
static struct fl_frame_id ids[MANY];

static void write_pages(int fd, uint64_t first, uint64_t end)
{
    static uint64_t page[FL_PAGE_SIZE / 8];
    for (uint64_t i = first; i < end; i++) {
        for (size_t word = 0; word < FL_PAGE_SIZE / 8; word++)
            page[word] = i + 1;
        if (pwrite(fd, page, sizeof(page), (off_t)(i * sizeof(page))) != (ssize_t)sizeof(page))
            die("cannot write the temporary file");
    }
}

static void begin(uint64_t limit, unsigned retries, unsigned frames)
{
    set_deadline();
    strcpy(path, "/tmp/faultline-read-ahead-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        die("no temporary file");
    write_pages(fd, 0, (uint64_t)frames * FL_FRAME_PAGES);
    close(fd);
    if (fl_image_open_raw(path, &image) || fl_io_pool_start(3, &pool) ||
        fl_cache_new(limit, retries, pool, &cache) || fl_mailbox_init(&box))
        die("cannot start");
    for (unsigned i = 0; i < frames; i++)
        ids[i] = fl_image_run(image, (uint64_t)i * FL_FRAME_PAGES, 1).id;
}

static struct fl_cache_stats stats(void)
{
    return fl_cache_stats(cache);
}

static void end(void)
{
    fl_rcu_offline();
    fl_cache_stop(cache);
    fl_io_pool_stop(pool);
    fl_rcu_online();
    fl_cache_free(cache);
    fl_mailbox_fini(&box);
    fl_image_unref(image);
    unlink(path);
}

static void check_pages(const uint8_t *data, uint64_t first, uint32_t pages)
{
    for (uint32_t i = 0; i < pages; i++) {
        uint64_t word;
        memcpy(&word, data + (size_t)i * FL_PAGE_SIZE + (size_t)8 * (i % 512), sizeof(word));
        if (word != first + i + 1)
            die("a page has the bytes of another");
    }
}

struct wait {
    struct fl_waiter waiter;
    bool came;
};

static void came(void *owner, struct fl_mail *mail)
{
    (void)owner;
    caa_container_of(mail, struct wait, waiter.mail)->came = true;
}

static void prepare(struct wait *wait)
{
    *wait = (struct wait){.waiter = {.mail.deliver = came, .box = &box}};
}

// Its error, or 0: then the frame is checked.
static int result_of(struct wait *wait, uint64_t first, uint32_t pages)
{
    while (!wait->came) {
        fl_mailbox_drain(&box, NULL);
        fl_rcu_quiescent();
        check_time("a waiter was never delivered");
    }
    if (wait->waiter.error)
        return wait->waiter.error;
    check_pages(fl_frame_data(wait->waiter.frame), first, pages);
    fl_frame_unpin(wait->waiter.frame);
    return 0;
}

static void wait_begins(struct wait *wait, int result)
{
    if (result < 0)
        die("out of memory");
    if (result == 1)
        wait->came = true;
}

static int want(unsigned frame)
{
    struct wait wait;
    prepare(&wait);
    wait_begins(&wait, fl_cache_want(cache, image, ids[frame], &wait.waiter, &wait.waiter.frame));
    return result_of(&wait, (uint64_t)frame * FL_FRAME_PAGES, FL_FRAME_PAGES);
}

static int want_huge(uint64_t first)
{
    struct wait wait;
    prepare(&wait);
    wait_begins(&wait, fl_cache_want_huge(cache, image, first, &wait.waiter, &wait.waiter.frame));
    return result_of(&wait, first, HUGE_PAGES);
}

static void begin_await(struct wait *wait, unsigned frame)
{
    prepare(wait);
    wait_begins(wait, fl_cache_await(cache, image, ids[frame], &wait->waiter, &wait->waiter.frame));
}

static int await(unsigned frame)
{
    struct wait wait;
    begin_await(&wait, frame);
    return result_of(&wait, (uint64_t)frame * FL_FRAME_PAGES, FL_FRAME_PAGES);
}

// --- what must hold ---

static void slow_reads_delay_nobody_who_wants(void)
{
    begin(64 << 20, 0, FRAMES);
    shut_gate();
    if (fl_cache_ahead(cache, image, ids, FRAMES) != FRAMES)
        die("there was no room");
    struct wait waits;
    begin_await(&waits, 6);
    await_held();
    if (want(5) || want(100) || want(FRAMES - 1)) // in the middle of reads that do not come back
        die("a frame could not be read");
    fl_cache_hurry(cache, ids[6]); // who could wait can no more
    if (result_of(&waits, UINT64_C(6) * FL_FRAME_PAGES, FL_FRAME_PAGES))
        die("a frame could not be read");
    if (!atomic_load(&shut) || stats().ahead_frames > 0)
        die("a large read came through the gate");
    if (stats().promoted != 4)
        die("they were not hurried");
    atomic_store(&shut, false);
    for (unsigned i = 0; i < FRAMES; i++) {
        if (await(i))
            die("a frame could not be read");
    }
    if (stats().reads + stats().ahead_frames != FRAMES)
        die("a frame was decompressed twice");
    end();
}

static void slow_reads_delay_no_page_of_2_mib(void)
{
    const uint64_t first[] = {0, 512, 1000};
    begin(64 << 20, 0, FRAMES);
    shut_gate();
    if (fl_cache_ahead_huge(cache, image, first, 3) != 3)
        die("there was no room");
    await_held();
    if (want_huge(512) || want_huge(77))
        die("a page of 2 MiB could not be had");
    if (stats().ahead_frames > 0)
        die("a large read came through the gate");
    atomic_store(&shut, false);
    if (want_huge(0) || want_huge(1000))
        die("a page of 2 MiB could not be had");
    end();
}

// The file has become shorter: the read that goes beyond its end brings less than was asked for.
static void what_an_extent_does_not_bring_is_read_one_by_one(void)
{
    enum { WHOLE = 70 };
    begin(64 << 20, 1, FRAMES);
    if (truncate(path, (off_t)WHOLE * FRAME_BYTES + 5000) != 0)
        die("cannot truncate");
    if (fl_cache_ahead(cache, image, ids, FRAMES) != FRAMES)
        die("there was no room");
    for (unsigned i = 0; i < FRAMES; i++) {
        int error = await(i);
        if (error != (i < WHOLE ? 0 : -ENODATA))
            die(i < WHOLE ? "a good frame suffered" : "a frame that is not there was read");
    }
    if (stats().ahead_errors == 0 || stats().failed < FRAMES - WHOLE)
        die("the damage was not seen");
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    write_pages(fd, (uint64_t)WHOLE * FL_FRAME_PAGES, (uint64_t)FRAMES * FL_FRAME_PAGES);
    close(fd);
    if (want(FRAMES - 1) || await(WHOLE) || want_huge(1024))
        die("damage is remembered");
    end();
}

static void until_ready(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        const struct fl_frame *there;
        while (!(there = fl_cache_lookup(cache, ids[i]))) {
            fl_rcu_quiescent();
            check_time("a frame never came");
        }
        struct fl_frame *frame = (struct fl_frame *)(uintptr_t)there;
        if (!fl_frame_pin(frame))
            die("what was asked for was evicted before its use");
        check_pages(fl_frame_data(frame), (uint64_t)i * FL_FRAME_PAGES, FL_FRAME_PAGES);
        fl_frame_unpin(frame);
    }
}

static void no_more_is_asked_for_than_there_is_room_for(void)
{
    enum { LIMIT = 64, ROOM = LIMIT / 4 };
    begin((uint64_t)LIMIT * FRAME_BYTES, 0, FRAMES);
    if (fl_cache_ahead(cache, image, ids, FRAMES) != ROOM ||
        fl_cache_ahead(cache, image, ids + ROOM, 1) != 0)
        die("the room is not what it should be");
    while (stats().frames < ROOM)
        check_time("what was asked for did not come");
    for (unsigned i = FRAMES - LIMIT; i < FRAMES; i++) // a full cache, and more
        want(i);
    uint64_t reads = stats().reads + stats().ahead_frames;
    until_ready(0, ROOM / 2);
    if (stats().reads + stats().ahead_frames != reads)
        die("what was asked for was evicted before its use");
    if (fl_cache_ahead(cache, image, ids + ROOM, LIMIT - ROOM) != ROOM / 2)
        die("use does not make room");
    if (fl_cache_ahead(cache, image, ids + ROOM + ROOM / 2, 1) != 0)
        die("there is room for more");
    go_on(UNUSED_S); // nobody comes for the rest
    while (fl_cache_ahead(cache, image, ids + ROOM + ROOM / 2, 1) == 0)
        check_time("what nobody uses takes the room for ever");
    end();
}

// What was asked for ahead and is never used goes, for the sake of what is wanted, though no more
// is asked for ahead.
static void what_nobody_comes_for_keeps_no_place(void)
{
    enum { LIMIT = 32, ROOM = LIMIT / 4 };
    begin((uint64_t)LIMIT * FRAME_BYTES, 0, FRAMES);
    if (fl_cache_ahead(cache, image, ids, ROOM) != ROOM)
        die("the room is not what it should be");
    while (stats().frames < ROOM)
        check_time("what was asked for did not come");
    for (unsigned i = ROOM; i < FRAMES; i++)
        want(i);
    if (stats().ahead_waiting != (uint64_t)ROOM * FRAME_BYTES)
        die("what was asked for is forgotten at once");
    go_on(UNUSED_S);
    want(ROOM); // it was evicted: one frame is admitted, after it was delivered to us
    while (stats().ahead_waiting != 0)
        check_time("what nobody uses keeps its place for ever");
    for (unsigned i = ROOM; i < FRAMES; i++)
        want(i);
    for (unsigned i = 0; i < ROOM; i++) {
        if (fl_cache_lookup(cache, ids[i]))
            die("what nobody uses is not evicted");
    }
    end();
}

static void *stop_cache(void *arg)
{
    (void)arg;
    fl_cache_stop(cache);
    return NULL;
}

static void an_end_waits_for_what_is_on_its_way_and_fails_the_rest(void)
{
    pthread_t stopper;
    struct wait waits;
    begin(1 << 30, 0, MANY);
    shut_gate();
    if (fl_cache_ahead(cache, image, ids, MANY) != MANY)
        die("there was no room");
    begin_await(&waits, MANY - 1);
    await_held();
    if (pthread_create(&stopper, NULL, stop_cache, NULL) != 0)
        die("no thread");
    if (result_of(&waits, 0, 0) != -ECANCELED)
        die("it was read after all");
    atomic_store(&shut, false);
    fl_rcu_offline();
    pthread_join(stopper, NULL);
    fl_rcu_online();
    end();
}

int main(int argc, char **argv)
{
    bool threads = argc > 1 && strcmp(argv[1], "threads") == 0;
    if (threads && !deny_io_uring())
        die("io_uring cannot be denied");
    if (!threads && !has_io_uring())
        fprintf(stderr, "[SKIP] io_uring is not to be had here: the same as with threads\n");
    rcu_register_thread();
    slow_reads_delay_nobody_who_wants();
    slow_reads_delay_no_page_of_2_mib();
    what_an_extent_does_not_bring_is_read_one_by_one();
    no_more_is_asked_for_than_there_is_room_for();
    what_nobody_comes_for_keeps_no_place();
    an_end_waits_for_what_is_on_its_way_and_fails_the_rest();
    rcu_unregister_thread();
    return 0;
}
