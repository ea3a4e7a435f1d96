// SPDX-License-Identifier: Apache-2.0
//
// What becomes of frames that a taker has taken: they go if it was the only one that had asked for
// them, and stay in every other case; their bytes are right for as long as somebody has a pin.
//
// frame_taken_test [threads]: with "threads" the read-ahead has no io_uring.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/io_pool.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "tests/support/no_io_uring.h"

enum {
    FRAMES = 512, // of the image; 32 MiB
    HUGE_PAGES = 512,
    SOME = 64,
    LIES = 16, // frames that may lie about until more are taken, or another one comes
    WINDOW = 8,
    TAKERS = 32,
    DEADLINE_S = 60,
};
#define FRAME_BYTES ((uint64_t)FL_FRAME_PAGES * FL_PAGE_SIZE)
#define MIB (UINT64_C(1) << 20)

static struct fl_io_pool *pool;
static struct fl_cache *cache;
static struct fl_mailbox box;
static struct fl_image *image;
static struct fl_frame_id ids[FRAMES];
static char path[64];
static time_t deadline;
static unsigned others; // frames that no test uses itself, from here on

static void die(const char *what)
{
    fprintf(stderr, "frame_taken_test: %s\n", what);
    _exit(1);
}

static void check_time(const char *what)
{
    if (time(NULL) > deadline)
        die(what);
    fl_rcu_quiescent();
    sched_yield();
}

static struct fl_cache_stats stats(void)
{
    return fl_cache_stats(cache);
}

static void write_file(int fd)
{
    static uint64_t page[FL_PAGE_SIZE / 8];
    for (uint64_t i = 0; i < (uint64_t)FRAMES * FL_FRAME_PAGES; i++) {
        for (size_t word = 0; word < FL_PAGE_SIZE / 8; word++)
            page[word] = i + 1;
        if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
            die("cannot write the temporary file");
    }
}

static void begin(void)
{
    deadline = time(NULL) + DEADLINE_S;
    others = 2 * SOME;
    if (fl_io_pool_start(3, &pool) || fl_cache_new(256 * MIB, 0, pool, &cache) ||
        fl_mailbox_init(&box))
        die("cannot start");
}

static void end(void)
{
    fl_rcu_offline();
    fl_cache_stop(cache);
    fl_io_pool_stop(pool);
    fl_rcu_online();
    fl_cache_free(cache);
    fl_mailbox_fini(&box);
}

static void check_bytes(const struct fl_frame *frame, unsigned index, uint32_t pages)
{
    for (uint32_t i = 0; i < pages; i++) {
        uint64_t word;
        memcpy(&word, fl_frame_data(frame) + (size_t)i * FL_PAGE_SIZE + (size_t)8 * (i % 512),
               sizeof(word));
        if (word != (uint64_t)index * FL_FRAME_PAGES + i + 1)
            die("a page has the bytes of another");
    }
}

static void ask(unsigned first, unsigned count, uint64_t taker)
{
    if (fl_cache_ahead_for(cache, image, ids + first, count, taker) != count)
        die("there is no room");
}

// Pinned, as of a frame that is there.
static struct fl_frame *look_up(unsigned index, uint64_t taker)
{
    for (;;) {
        const struct fl_frame *there = fl_cache_lookup_for(cache, ids[index], taker);
        struct fl_frame *frame = (struct fl_frame *)(uintptr_t)there;
        if (frame && fl_frame_pin(frame)) {
            check_bytes(frame, index, FL_FRAME_PAGES);
            return frame;
        }
        check_time("a frame never came");
    }
}

static void use(unsigned index, uint64_t taker)
{
    fl_frame_unpin(look_up(index, taker));
}

static void take(unsigned first, unsigned count, uint64_t taker)
{
    for (unsigned i = first; i < first + count; i++) {
        use(i, taker);
        fl_cache_taken(cache, ids[i], taker);
    }
}

// Whether it is there; this is no use of it.
static bool is_there(unsigned index, uint64_t taker)
{
    return fl_cache_lookup_for(cache, ids[index], taker);
}

// All `asked` have been counted, which happens a little after they can be used, and most have gone.
static void await_most(uint64_t frames, uint64_t asked)
{
    struct fl_cache_stats now = stats();
    for (; now.frames > frames || now.frames + now.taken < asked; now = stats())
        check_time("what was taken does not go");
}

// Others that are taken, so that the cache looks at what was taken before.
static void have_it_look(void)
{
    uint64_t taken = stats().taken;
    ask(others, SOME, 77);
    take(others, SOME, 77);
    others += SOME;
    while (stats().taken < taken + SOME - LIES)
        check_time("nothing goes");
}

// --- they go ---

static void what_one_alone_takes_goes(void)
{
    begin();
    ask(0, SOME, 1);
    take(0, SOME, 1);
    if (stats().ahead_waiting != 0)
        die("what was taken counts as waiting");
    await_most(LIES, SOME);
    struct fl_cache_stats now = stats(); // each number by itself: others may be on their way out
    for (; now.taken != SOME - now.frames || now.bytes != now.frames * FRAME_BYTES; now = stats())
        check_time("it is not counted as it should be");
    if (now.evictions != 0)
        die("it was evicted");
    end();
}

static void its_memory_is_the_next_ones(void)
{
    begin();
    uint64_t most = 0;
    for (unsigned at = 0; at < FRAMES; at += WINDOW) {
        ask(at, WINDOW, 1);
        take(at, WINDOW, 1);
        most = stats().memory > most ? stats().memory : most;
    }
    if (most == 0 || most > 8 * MIB)
        die("32 MiB take more than a few MiB of memory, or none");
    end();
}

static void of_pages_of_2_mib_too(void)
{
    begin();
    for (uint64_t first = 0; first < (uint64_t)FRAMES * FL_FRAME_PAGES; first += HUGE_PAGES) {
        const struct fl_frame *there = NULL;
        if (fl_cache_ahead_huge_for(cache, image, &first, 1, 1) != 1)
            die("there is no room");
        while (!(there = fl_cache_lookup_huge_for(cache, image, first, 1)))
            check_time("a page never came");
        struct fl_frame *frame = (struct fl_frame *)(uintptr_t)there;
        if (!fl_frame_pin(frame))
            die("it is gone before it was taken");
        check_bytes(frame, (unsigned)(first / FL_FRAME_PAGES), HUGE_PAGES);
        fl_frame_unpin(frame);
        fl_cache_taken_huge(cache, image, first, 1);
    }
    await_most(0, FRAMES * FL_FRAME_PAGES / HUGE_PAGES);
    if (stats().taken != FRAMES * FL_FRAME_PAGES / HUGE_PAGES)
        die("they have not gone");
    end();
}

static void one_that_is_pinned_goes_later(void)
{
    begin();
    ask(0, SOME, 1);
    struct fl_frame *pinned = look_up(3, 1);
    take(0, SOME, 1);
    have_it_look();
    check_bytes(pinned, 3, FL_FRAME_PAGES);
    fl_frame_unpin(pinned);
    ask(SOME, SOME, 1);
    take(SOME, SOME, 1);
    await_most(LIES, 3 * SOME);
    if (is_there(3, 1))
        die("it stays though nobody uses it any more");
    end();
}

// --- they stay ---

static void stays(const char *why)
{
    have_it_look();
    for (unsigned i = 0; i < SOME; i++) {
        if (!is_there(i, 1))
            die(why);
    }
    end();
}

static void what_two_have_asked_for_stays(void)
{
    begin();
    ask(0, SOME, 1);
    ask(0, SOME, 2);
    take(0, SOME, 1);
    stays("it went, though another taker had asked for it");
}

static void what_was_looked_up_stays(void)
{
    begin();
    ask(0, SOME, 1);
    for (unsigned i = 0; i < SOME; i++)
        use(i, 0);
    take(0, SOME, 1);
    stays("it went, though somebody had looked it up");
}

static void came(void *owner, struct fl_mail *mail)
{
    struct fl_waiter *waiter = caa_container_of(mail, struct fl_waiter, mail);
    (void)owner;
    if (!waiter->frame)
        die("a frame could not be read");
    fl_frame_unpin(waiter->frame);
    ++*(unsigned *)waiter->user;
}

// Each waits for its frame as `taker`, or has it at once.
static void wait_for_all(uint64_t taker)
{
    static struct fl_waiter waiter[SOME];
    unsigned there = 0;
    for (unsigned i = 0; i < SOME; i++) {
        struct fl_frame *frame = NULL;
        waiter[i] =
            (struct fl_waiter){.mail.deliver = came, .box = &box, .user = &there, .taker = taker};
        int result = fl_cache_want(cache, image, ids[i], &waiter[i], &frame);
        if (result == 1)
            fl_frame_unpin(frame);
        there += result == 1;
    }
    while (there < SOME) {
        fl_mailbox_drain(&box, NULL);
        check_time("a waiter was never delivered");
    }
}

static void what_a_fault_waits_for_stays(void)
{
    begin();
    ask(0, SOME, 1);
    wait_for_all(0);
    take(0, SOME, 1);
    stays("it went, though a fault had waited for it");
}

static void what_its_own_fault_waits_for_goes(void)
{
    begin();
    ask(0, SOME, 1);
    wait_for_all(1);
    take(0, SOME, 1);
    await_most(LIES, SOME);
    end();
}

static void what_is_asked_for_again_stays(void)
{
    begin();
    ask(0, SOME, 1);
    take(0, SOME, 1);
    have_it_look();
    ask(0, SOME, 2);
    take(0, SOME, 2);
    stays("it went a second time");
}

// Looked up between its being taken and its end.
static void what_is_wanted_in_time_stays(void)
{
    begin();
    ask(0, SOME, 1);
    struct fl_frame *pinned = look_up(3, 1);
    take(0, SOME, 1);
    have_it_look();
    use(3, 0);
    fl_frame_unpin(pinned);
    have_it_look();
    if (!is_there(3, 1))
        die("it went, though somebody had looked it up again");
    end();
}

static void where_memory_was_taken_ahead_it_stays(void)
{
    begin();
    if (fl_cache_prepare(cache, 64 * MIB, 0) != 0)
        die("no memory");
    while (stats().memory < 64 * MIB)
        check_time("the memory was not taken");
    ask(0, SOME, 1);
    take(0, SOME, 1);
    while (stats().frames + stats().taken < SOME)
        check_time("a frame was not counted");
    if (stats().frames != SOME || stats().taken != 0)
        die("it went, though there is memory for it");
    end();
}

// --- many at once ---

// Each asks before any takes: nothing is read twice.
static void a_herd_reads_once(void)
{
    begin();
    for (uint64_t taker = 1; taker <= TAKERS; taker++)
        ask(0, SOME, taker);
    for (uint64_t taker = 1; taker <= TAKERS; taker++)
        take(0, SOME, taker);
    if (stats().reads + stats().ahead_frames != SOME || stats().taken != 0)
        die("a herd has frames read more than once");
    end();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "threads") == 0 && !deny_io_uring())
        die("io_uring cannot be denied");
    strcpy(path, "/tmp/faultline-frame-taken-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        die("no temporary file");
    write_file(fd);
    close(fd);
    rcu_register_thread();
    int error = fl_image_open_raw(path, &image);
    unlink(path);
    if (error)
        die("no image");
    for (unsigned i = 0; i < FRAMES; i++)
        ids[i] = fl_image_run(image, (uint64_t)i * FL_FRAME_PAGES, 1).id;
    what_one_alone_takes_goes();
    its_memory_is_the_next_ones();
    of_pages_of_2_mib_too();
    one_that_is_pinned_goes_later();
    what_two_have_asked_for_stays();
    what_was_looked_up_stays();
    what_a_fault_waits_for_stays();
    what_its_own_fault_waits_for_goes();
    what_is_asked_for_again_stays();
    what_is_wanted_in_time_stays();
    where_memory_was_taken_ahead_it_stays();
    a_herd_reads_once();
    fl_image_unref(image);
    rcu_unregister_thread();
    return 0;
}
