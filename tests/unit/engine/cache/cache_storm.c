// SPDX-License-Identifier: Apache-2.0
//
// Many threads on a frame cache far too small for them: each wants random frames and pages of 2
// MiB, with and without waiting, ahead of use and at once, and checks every byte it gets. Finds use
// after free, lost waiters, bytes in the wrong place; runs under TSan too.
//
// cache_storm [threads]: with "threads" the read-ahead has no io_uring.
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/io_pool.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "tests/support/no_io_uring.h"

enum {
    FRAMES = 128,
    PAGES = FRAMES * FL_FRAME_PAGES, // of the image; 8 MiB
    HUGE_PAGES = 512,
    THREADS = 4,
    OUT_MOST = 8,
    DEADLINE_MS = 60000
};

struct client {
    struct fl_mailbox box;
    struct fl_cache *cache;
    struct fl_image *image;
    unsigned seed;
    unsigned wants;
    unsigned out; // waiters not yet back
    unsigned long served;
    unsigned long refused; // asked for ahead, and there was no room
    uint64_t taker;        // its name where it takes frames
};

struct want {
    struct fl_waiter waiter;
    struct client *client;
    bool huge;
    uint64_t page;
};

static void die(const char *what)
{
    fprintf(stderr, "cache_storm: %s\n", what);
    _exit(1);
}

static bool hole(uint64_t page)
{
    return page % 48 < 7 || page / 300 == 3;
}

// Page p of the file is filled with the word p + 1; holes, and what is beyond its end, with zeros.
static void check(const uint8_t *data, uint64_t first, uint32_t pages)
{
    for (uint32_t i = 0; i < pages; i++) {
        uint64_t page = first + i;
        uint64_t word;
        for (uint32_t at = 0; at < FL_PAGE_SIZE; at += 1016) {
            memcpy(&word, data + (size_t)i * FL_PAGE_SIZE + at, sizeof(word));
            if (word != (page >= PAGES || hole(page) ? 0 : page + 1))
                die("a page has the bytes of another");
        }
    }
}

static void check_want(const struct want *want, const struct fl_frame *frame)
{
    check(fl_frame_data(frame), want->page, want->huge ? HUGE_PAGES : FL_FRAME_PAGES);
    want->client->served++;
}

static struct fl_frame_id id_of(const struct client *client, uint64_t page)
{
    return fl_image_run(client->image, page, 1).id;
}

// It has the bytes.
static void end_want(struct want *want)
{
    struct client *client = want->client;
    if (want->waiter.taker && want->huge)
        fl_cache_taken_huge(client->cache, client->image, want->page, client->taker);
    else if (want->waiter.taker)
        fl_cache_taken(client->cache, id_of(client, want->page), client->taker);
    free(want);
}

static void came(void *owner, struct fl_mail *mail)
{
    struct want *want = caa_container_of(mail, struct want, waiter.mail);
    struct client *client = owner;
    if (want->waiter.error || !want->waiter.frame)
        die("a frame could not be read");
    check_want(want, want->waiter.frame);
    fl_frame_unpin(want->waiter.frame);
    client->out--;
    end_want(want);
}

static unsigned chance(struct client *client, unsigned of)
{
    return (unsigned)rand_r(&client->seed) % of;
}

// The first page of a frame that is not all hole.
static uint64_t some_frame(struct client *client)
{
    uint64_t page;
    do
        page = (uint64_t)chance(client, FRAMES) * FL_FRAME_PAGES;
    while (fl_image_run(client->image, page, 1).zero);
    return page;
}

static const struct fl_frame *look_up(const struct want *want)
{
    struct client *client = want->client;
    uint64_t taker = want->waiter.taker;
    return want->huge ? fl_cache_lookup_huge_for(client->cache, client->image, want->page, taker)
                      : fl_cache_lookup_for(client->cache, id_of(client, want->page), taker);
}

static int wait_for(struct want *want, bool hurry, struct fl_frame **ret_frame)
{
    struct client *client = want->client;
    struct fl_waiter *waiter = &want->waiter;
    if (want->huge)
        return (hurry ? fl_cache_want_huge : fl_cache_await_huge)(client->cache, client->image,
                                                                  want->page, waiter, ret_frame);
    return (hurry ? fl_cache_want : fl_cache_await)(client->cache, client->image,
                                                    id_of(client, want->page), waiter, ret_frame);
}

static void want_one(struct client *client)
{
    struct want *want = calloc(1, sizeof(*want));
    struct fl_frame *frame = NULL;
    want->client = client;
    want->huge = chance(client, 8) == 0;
    // Few different ones, at odd places, some of them across the image's end.
    want->page =
        want->huge ? (uint64_t)chance(client, 12) * (PAGES - 5) / 12 + 3 : some_frame(client);
    want->waiter.taker = chance(client, 2) * client->taker;
    struct fl_frame *there = (struct fl_frame *)(uintptr_t)look_up(want);
    if (there && fl_frame_pin(there)) {
        check_want(want, there);
        fl_frame_unpin(there);
        end_want(want);
        return;
    }
    want->waiter.mail.deliver = came;
    want->waiter.box = &client->box;
    bool hurry = chance(client, 2);
    int result = wait_for(want, hurry, &frame);
    if (result < 0)
        die("out of memory");
    if (result == 1) {
        check_want(want, frame);
        fl_frame_unpin(frame);
        end_want(want);
        return;
    }
    client->out++;
    if (!hurry && chance(client, 4) == 0 && want->huge)
        fl_cache_hurry_huge(client->cache, client->image, want->page);
}

static void ask_ahead(struct client *client)
{
    struct fl_frame_id ids[16];
    uint64_t first = (uint64_t)chance(client, 12) * (PAGES - 5) / 12 + 3;
    uint64_t at = chance(client, PAGES - 16 * FL_FRAME_PAGES);
    uint32_t count = 0;
    for (unsigned i = 0; i < 16; i++) {
        struct fl_run run = fl_image_run(client->image, at + (uint64_t)i * FL_FRAME_PAGES, 1);
        if (!run.zero)
            ids[count++] = run.id;
    }
    uint64_t taker = chance(client, 2) * client->taker;
    client->refused += count - fl_cache_ahead_for(client->cache, client->image, ids, count, taker);
    if (chance(client, 4) == 0)
        client->refused +=
            1 - fl_cache_ahead_huge_for(client->cache, client->image, &first, 1, taker);
}

static void collect(struct client *client)
{
    if (!fl_mailbox_drain(&client->box, client) && fl_mailbox_sleep(&client->box)) {
        struct pollfd poll_fd = {.fd = client->box.event_fd, .events = POLLIN};
        fl_rcu_offline();
        if (poll(&poll_fd, 1, DEADLINE_MS) != 1)
            die("a waiter was never delivered");
        fl_rcu_online();
        fl_mailbox_awake(&client->box);
    }
}

static void *client_main(void *arg)
{
    struct client *client = arg;
    rcu_register_thread();
    for (unsigned i = 0; i < client->wants; i++) {
        if (chance(client, 8) == 0)
            ask_ahead(client);
        want_one(client);
        while (client->out > OUT_MOST)
            collect(client);
        fl_rcu_quiescent();
    }
    while (client->out > 0)
        collect(client);
    fl_rcu_quiescent(); // what came last has looked frames up
    rcu_unregister_thread();
    return NULL;
}

static void bring(struct client *client, uint64_t page, bool huge)
{
    struct fl_frame *frame = NULL;
    struct want *want = calloc(1, sizeof(*want));
    want->client = client;
    want->huge = huge;
    want->page = page;
    want->waiter.mail.deliver = came;
    want->waiter.box = &client->box;
    if (wait_for(want, true, &frame) == 1) {
        fl_frame_unpin(frame);
        free(want);
    } else {
        client->out++;
    }
    while (client->out > 0)
        collect(client);
    fl_rcu_quiescent();
}

static bool bound_holds(struct fl_cache *cache)
{
    struct fl_cache_stats stats = fl_cache_stats(cache);
    return stats.bytes <= stats.limit + (uint64_t)FL_FRAME_PAGES * FL_PAGE_SIZE;
}

// When all is given back, each frame is brought once more, one at a time: then the bound holds, but
// for the last of them. A pin too many, or too few, keeps frames for ever. A reader that has just
// delivered a frame has a pin of its own, and may be the last to put it into its place: what it has
// goes with what comes after. So all is brought again, after a page of 2 MiB that is new each time,
// as nothing else need be missing.
static void check_bound(struct fl_cache *cache, struct fl_image *image)
{
    struct client client = {.cache = cache, .image = image, .seed = 1};
    time_t end = time(NULL) + DEADLINE_MS / 1000;
    if (fl_mailbox_init(&client.box))
        die("no mailbox");
    for (uint64_t round = 0; round == 0 || !bound_holds(cache); round++) {
        if (time(NULL) > end)
            die("the bound does not hold though nothing is pinned");
        if (round > 0)
            bring(&client, round % (PAGES - HUGE_PAGES), true);
        for (uint64_t page = 0; page < PAGES; page += FL_FRAME_PAGES) {
            if (!fl_image_run(image, page, 1).zero)
                bring(&client, page, false);
        }
    }
    fl_mailbox_fini(&client.box);
}

static void make_file(char *path)
{
    static uint64_t page[FL_PAGE_SIZE / 8];
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, (off_t)PAGES * FL_PAGE_SIZE) != 0)
        die("no temporary file");
    for (uint64_t i = 0; i < PAGES; i++) {
        for (size_t word = 0; word < FL_PAGE_SIZE / 8; word++)
            page[word] = i + 1;
        if (!hole(i) &&
            pwrite(fd, page, sizeof(page), (off_t)(i * FL_PAGE_SIZE)) != (ssize_t)sizeof(page))
            die("cannot write the temporary file");
    }
    close(fd);
}

// Returns what the clients were refused. A herd's clients all want the same at about the same time.
static unsigned long storm(struct fl_image *image, uint64_t limit, unsigned wants, bool herd,
                           const char *io)
{
    static struct client client[THREADS];
    pthread_t thread[THREADS];
    struct fl_io_pool *pool = NULL;
    struct fl_cache *cache = NULL;
    unsigned long served = 0;
    unsigned long refused = 0;
    if (fl_io_pool_start(3, &pool) || fl_cache_new(limit, 0, pool, &cache))
        die("cannot start");
    for (unsigned i = 0; i < THREADS; i++) {
        client[i] = (struct client){.cache = cache,
                                    .image = image,
                                    .seed = herd ? 1 : i + 1,
                                    .wants = wants,
                                    .taker = i + 1};
        if (fl_mailbox_init(&client[i].box) ||
            pthread_create(&thread[i], NULL, client_main, &client[i]))
            die("cannot start");
    }
    fl_rcu_offline();
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        served += client[i].served;
        refused += client[i].refused;
        fl_mailbox_fini(&client[i].box);
    }
    fl_rcu_online();
    check_bound(cache, image);
    if (fl_cache_stats(cache).failed > 0)
        die("loads failed");
    fl_rcu_offline();
    fl_cache_stop(cache); // what was asked for ahead and has not come fails now
    fl_io_pool_stop(pool);
    fl_rcu_online();
    struct fl_cache_stats stats = fl_cache_stats(cache);
    fl_cache_free(cache);
    printf("%lu served, %lu read, %lu evicted, %lu bytes at the end; ahead, by %s: %lu extents, "
           "%lu frames, %lu promoted, %lu refused; %lu taken\n",
           served, (unsigned long)stats.reads, (unsigned long)stats.evictions,
           (unsigned long)stats.bytes, stats.io, (unsigned long)stats.ahead_extents,
           (unsigned long)stats.ahead_frames, (unsigned long)stats.promoted, refused,
           (unsigned long)stats.taken);
    if (served != (unsigned long)THREADS * wants)
        die("some were not served");
    if (strcmp(stats.io, io) != 0)
        die("it does not read as it should");
    // What was pinned when the last one came may exceed the bound until the next comes.
    uint64_t pinned = (uint64_t)THREADS * (OUT_MOST + 1) * HUGE_PAGES * FL_PAGE_SIZE;
    if (stats.bytes > stats.limit + pinned || stats.evictions == 0)
        die("the bound does not hold");
    if (stats.read_errors > 0 || stats.ahead_errors > 0)
        die("reads failed");
    if (stats.ahead_extents == 0 || stats.ahead_frames == 0)
        die("nothing came ahead");
    return refused;
}

int main(int argc, char **argv)
{
    struct fl_image *image = NULL;
    char path[] = "/tmp/faultline-cache-storm-XXXXXX";
    bool threads = argc > 1 && strcmp(argv[1], "threads") == 0;
    if (threads && !deny_io_uring())
        die("io_uring cannot be denied");
    const char *io = has_io_uring() ? "io_uring" : "threads";
    make_file(path);
    rcu_register_thread();
    int error = fl_image_open_raw(path, &image);
    unlink(path);
    if (error)
        die("no image");
    // Six frames; room for one page of 2 MiB ahead of use; for most of it.
    unsigned long refused = storm(image, 6 * 65536, 4000, false, io);
    refused += storm(image, 6 * 65536, 4000, true, io);
    refused += storm(image, 8 << 20, 4000, false, io);
    storm(image, 18 << 20, 4000, false, io);
    if (refused == 0)
        die("there was always room");
    fl_image_unref(image);
    rcu_unregister_thread();
    return 0;
}
