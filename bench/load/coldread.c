// SPDX-License-Identifier: Apache-2.0
//
// coldread: how fast the engine's read-ahead brings all frames of an image into memory when the
// page cache has none of them. One thread asks for frames ahead and waits for each in turn, as a
// replay does, but installs nothing.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "engine/base/io_pool.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "snapshot/read.h"

enum { READERS_MIN = 4 };

struct frames {
    uint64_t count;
    struct fl_frame_id *ids; // in the order of the image's pages, each once
    uint64_t stored;         // bytes on disk
    uint64_t bytes;          // in memory
};

struct reader {
    struct fl_cache *cache;
    struct fl_image *image;
    struct fl_mailbox box;
    struct fl_waiter waiter;
    bool came;
};

_Noreturn static void fail(const char *what, int error)
{
    fprintf(stderr, "coldread: %s%s%s\n", what, error ? ": " : "", error ? strerror(-error) : "");
    exit(1);
}

// --- the page cache ---

// Returns how much of the file is in the page cache, from 0 to 1.
static double resident(int fd)
{
    struct stat status;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (fstat(fd, &status) != 0 || status.st_size == 0)
        return 0;
    size_t pages = ((size_t)status.st_size + page - 1) / page;
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *in_memory = malloc(pages);
    if (map == MAP_FAILED || !in_memory || mincore(map, (size_t)status.st_size, in_memory) != 0)
        fail("cannot see what is in the page cache", -errno);
    size_t there = 0;
    for (size_t i = 0; i < pages; i++)
        there += in_memory[i] & 1;
    free(in_memory);
    munmap(map, (size_t)status.st_size);
    return (double)there / (double)pages;
}

// Empties the page cache of the image's packs. Returns how much of a pack stayed, at most, from 0
// to 1.
static double make_cold(const struct fl_image *image)
{
    double most = 0;
    uint32_t files = fl_image_files(image, NULL, 0);
    int *fds = malloc((files ? files : 1) * sizeof(*fds));
    if (!fds)
        fail("no memory", 0);
    fl_image_files(image, fds, files);
    for (uint32_t i = 1; i < files; i++) {
        fsync(fds[i]); // dirty pages cannot be forgotten
        posix_fadvise(fds[i], 0, 0, POSIX_FADV_DONTNEED);
        double part = resident(fds[i]);
        most = part > most ? part : most;
    }
    free(fds);
    return most;
}

// --- the frames ---

static int compare(const void *a, const void *b)
{
    const struct fl_frame_id *left = a;
    const struct fl_frame_id *right = b;
    if (left->pack != right->pack)
        return left->pack < right->pack ? -1 : 1;
    return left->frame < right->frame ? -1 : left->frame > right->frame;
}

// Adds up the sizes of the frames, each of them once.
static void measure(const struct fl_image *image, const struct fl_frame_id *sorted, uint64_t count,
                    struct frames *frames)
{
    for (uint64_t i = 0; i < count; i++) {
        struct fl_frame_place place;
        if (i > 0 && compare(&sorted[i - 1], &sorted[i]) == 0)
            continue;
        if (fl_frame_place(image, sorted[i], &place) < 0)
            fail("a frame has no place", 0);
        frames->stored += place.stored;
        frames->bytes += (uint64_t)fl_frame_pages(image, sorted[i]) * FL_PAGE_SIZE;
    }
}

// Lists frames in the order of the pages. A frame that is used in several places is listed several
// times, and is in memory after the first.
static struct frames list_frames(const struct fl_image *image)
{
    struct frames frames = {0};
    uint64_t pages = fl_image_pages(image);
    frames.ids = malloc(pages * sizeof(*frames.ids));
    struct fl_frame_id *sorted = malloc(pages * sizeof(*sorted));
    if (!frames.ids || !sorted)
        fail("no memory", 0);
    for (uint64_t page = 0; page < pages;) {
        struct fl_run run = fl_image_run(image, page, FL_FRAME_PAGES_MAX);
        bool again = frames.count > 0 && compare(&frames.ids[frames.count - 1], &run.id) == 0;
        if (!run.zero && !again)
            frames.ids[frames.count++] = run.id;
        page += run.pages;
    }
    memcpy(sorted, frames.ids, frames.count * sizeof(*sorted));
    qsort(sorted, frames.count, sizeof(*sorted), compare);
    measure(image, sorted, frames.count, &frames);
    free(sorted);
    return frames;
}

// --- reading ---

static void came(void *owner, struct fl_mail *mail)
{
    (void)mail;
    ((struct reader *)owner)->came = true;
}

static void collect(struct reader *reader)
{
    while (!reader->came) {
        fl_mailbox_drain(&reader->box, reader);
        if (reader->came || !fl_mailbox_sleep(&reader->box))
            continue;
        struct pollfd poll_fd = {.fd = reader->box.event_fd, .events = POLLIN};
        fl_rcu_offline();
        poll(&poll_fd, 1, -1);
        fl_rcu_online();
        fl_mailbox_awake(&reader->box);
    }
}

static void use(struct reader *reader, struct fl_frame_id id)
{
    struct fl_frame *frame = NULL;
    if (fl_cache_lookup(reader->cache, id))
        return;
    reader->came = false;
    reader->waiter = (struct fl_waiter){.mail.deliver = came, .box = &reader->box};
    int result = fl_cache_await(reader->cache, reader->image, id, &reader->waiter, &frame);
    if (result < 0)
        fail("no memory", 0);
    if (result == 0) {
        collect(reader);
        frame = reader->waiter.frame;
    }
    if (!frame)
        fail(fl_frame_strerror(reader->waiter.error), 0);
    fl_frame_unpin(frame);
}

static void read_all(struct reader *reader, const struct frames *frames)
{
    uint64_t asked = 0;
    for (uint64_t i = 0; i < frames->count; i++) {
        if (asked < i)
            asked = i;
        uint64_t left = frames->count - asked;
        asked += fl_cache_ahead(reader->cache, reader->image, frames->ids + asked,
                                (uint32_t)(left < 256 ? left : 256));
        use(reader, frames->ids[i]);
        fl_rcu_quiescent();
    }
}

static unsigned readers(void)
{
    cpu_set_t allowed;
    unsigned cores = 1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
        cores = (unsigned)CPU_COUNT(&allowed);
    return cores > READERS_MIN ? cores : READERS_MIN;
}

static void run(struct fl_image *image, uint64_t bytes)
{
    struct reader reader = {.image = image};
    struct fl_io_pool *pool = NULL;
    struct frames frames = list_frames(image);
    if (frames.count == 0)
        fail("the image is all zeros", 0);
    int error = fl_io_pool_start(readers(), &pool);
    if (!error)
        error = fl_cache_new(bytes, 0, pool, &reader.cache);
    if (!error)
        error = fl_mailbox_init(&reader.box);
    if (error)
        fail("cannot start", error);
    double warm = make_cold(image);
    uint64_t begun = bench_now_ns();
    read_all(&reader, &frames);
    double seconds = (double)(bench_now_ns() - begun) / 1e9;
    struct fl_cache_stats stats = fl_cache_stats(reader.cache);
    printf("{\"io\":\"%s\",\"frames\":%llu,\"stored\":%llu,\"bytes\":%llu,\"seconds\":%.6f,"
           "\"cached\":%.4f,\"extents\":%llu,\"one_by_one\":%llu}\n",
           stats.io, (unsigned long long)frames.count, (unsigned long long)frames.stored,
           (unsigned long long)frames.bytes, seconds, warm, (unsigned long long)stats.ahead_extents,
           (unsigned long long)stats.reads);
    fl_rcu_offline();
    fl_cache_stop(reader.cache);
    fl_io_pool_stop(pool);
    fl_rcu_online();
    fl_cache_free(reader.cache);
    fl_mailbox_fini(&reader.box);
    free(frames.ids);
}

static const char *store_path, *image_name;
static uint64_t cache_bytes = (uint64_t)1 << 30;
static const struct bench_option options[] = {
    {.value = "STORE", .text = &store_path, .required = true, .help = "a store's directory"},
    {.value = "IMAGE", .text = &image_name, .required = true, .help = "an image in it"},
    {.value = "CACHE", .large = &cache_bytes, .help = "bytes of the frame cache"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "coldread",
    .about = "Has the engine's read-ahead bring all frames of an image into memory, from a cold "
             "page cache, and prints as JSON how long it took.",
    .option = options,
};

int main(int argc, char **argv)
{
    struct fl_reader *store = NULL;
    struct fl_image *image = NULL;
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    rcu_register_thread();
    int error = fl_reader_open(store_path, &store);
    if (!error)
        error = fl_image_open(store, image_name, &image);
    if (error)
        fail(image_name, error);
    run(image, cache_bytes);
    fl_image_unref(image);
    fl_reader_close(store);
    rcu_unregister_thread();
    return 0;
}
