// SPDX-License-Identifier: Apache-2.0
//
// Memory that comes ahead of use, and pages of 2 MiB that the reader threads put together: with
// io_uring, and where the host does not allow it.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "tests/support/no_io_uring.h"
#include "tests/support/world.h"

TestSuite(read_ahead, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

static void expect_io(const char *io)
{
    static char output[1 << 16];
    char field[64];
    const char *args[] = {"status", "--control", temp_path(&world->temp, "control.sock"), "--json",
                          NULL};
    snprintf(field, sizeof(field), "\"io\": \"%s\"", io);
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert_not_null(strstr(output, field), "%s is not in %s", field, output);
}

static void drain(void)
{
    char output[1024];
    const char *args[] = {"drain", "--populate", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
}

// Touches one page; all the others come with the drain, and nobody serves it afterwards.
static int touch_one_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    vmm_map(&vmm, &world->memory, *(const uint32_t *)arg, 2, VMM_1_12);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 1);
    tell_test(channel, 'a');
    await_test(channel, 'd');
    vmm_touch_all(&vmm, 2, VMM_UP, true);
    return 0;
}

static int touch_all_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    vmm_map(&vmm, &world->memory, *(const uint32_t *)arg, 2, VMM_1_12);
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 4, VMM_RANDOM, true);
    return 0;
}

static void populate(uint32_t page_bytes, const char *const *options, const char *io)
{
    struct client toucher;
    struct client client;
    world = world_make(MIXED, (14 << 20) + 40960);
    world_serve(world, options);
    expect_io(io);
    if (options) { // a cache that is full of what does not come again
        client_start(&toucher, touch_all_main, &page_bytes);
        cr_assert_eq(client_wait(&toucher), 0);
    }
    client_start(&client, touch_one_main, &page_bytes);
    cr_assert(client_says(&client, 'a'));
    drain();
    client_tell(&client, 'd');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "faults", "poisoned"), 0);
    cr_assert_eq(world_status(world, "cache", "read_errors"), 0);
    cr_assert_gt(world_status(world, "ahead", "frames"), 0, "nothing came ahead");
    world_stop(world);
}

// Small, so that what comes ahead has to be read again: an eighth of it is room for that.
static const char *const small[] = {"--cache", "2M", NULL};
static const char *const medium[] = {"--cache", "10M", NULL};

static void need_io_uring(void)
{
    if (!has_io_uring())
        cr_skip_test("this test needs io_uring");
}

Test(read_ahead, all_memory_comes_by_io_uring)
{
    need_io_uring();
    populate(PAGE, NULL, "io_uring");
}

Test(read_ahead, all_memory_comes_by_io_uring_through_a_small_cache)
{
    need_io_uring();
    populate(PAGE, small, "io_uring");
}

Test(read_ahead, huge_pages_come_by_io_uring)
{
    need_io_uring();
    need_huge_pages(8);
    populate(HUGE, medium, "io_uring");
}

// The number of the call that the thread that reads ahead is in; -1: in none.
static long call_of_the_reader(void)
{
    char path[64];
    long call = -1;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)server_engine(&world->server),
             (int)server_engine_thread(&world->server, "fl-ahead"));
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s: %s", path, strerror(errno));
    if (fscanf(file, "%ld", &call) != 1)
        call = -1;
    fclose(file);
    return call;
}

static bool waits_outside_a_ring(void *arg)
{
    (void)arg;
    long call = call_of_the_reader();
    return call != -1 && call != SYS_io_uring_enter;
}

// A wait in a ring is one for a disk to the kernel: a server that has nothing to do would keep
// /proc/pressure/io at a hundred per cent.
Test(read_ahead, a_reader_without_reads_does_not_wait_for_a_disk)
{
    struct client client;
    uint32_t page_bytes = PAGE;
    need_io_uring();
    world = world_make(MIXED, 4 << 20);
    world_serve(world, small);
    expect_io("io_uring");
    cr_assert(wait_until(waits_outside_a_ring, NULL), "call %ld", call_of_the_reader());
    client_start(&client, touch_one_main, &page_bytes);
    cr_assert(client_says(&client, 'a'));
    drain(); // it has read now
    client_tell(&client, 'd');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_gt(world_status(world, "ahead", "frames"), 0);
    cr_assert(wait_until(waits_outside_a_ring, NULL), "call %ld", call_of_the_reader());
    world_stop(world);
}

Test(read_ahead, all_memory_comes_without_io_uring)
{
    cr_assert(deny_io_uring());
    populate(PAGE, small, "threads");
    cr_assert_geq(server_logs(&world->server, "event=io_threads", 1), 1);
}

Test(read_ahead, all_memory_comes_where_a_ring_cannot_be_used)
{
    cr_assert(deny_io_uring_use());
    populate(PAGE, small, "threads");
    cr_assert_geq(server_logs(&world->server, "event=io_threads", 1), 1);
}

Test(read_ahead, huge_pages_come_without_io_uring)
{
    need_huge_pages(8);
    cr_assert(deny_io_uring());
    populate(HUGE, NULL, "threads");
}

// --- regions that do not begin where a page of 2 MiB of the image does, and end beyond it ---

static int odd_regions_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map_memory(&vmm, &world->memory, HUGE, 3, VMM_1_12);
    // Two of the three, moved within the image; the last page begins in it and ends beyond it.
    vmm.region[1] = vmm.region[2];
    vmm.regions = 2;
    vmm.region[0].offset = (uint64_t)5 * PAGE;
    vmm.region[1].offset -= (uint64_t)7 * PAGE;
    vmm.uffd = vmm_open_uffd(VMM_1_12);
    vmm_enable(vmm.uffd, 0);
    vmm_register(&vmm);
    vmm_handshake(&vmm, world->socket);
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t at = 0; at < vmm.region[i].bytes; at += HUGE)
            CHECK(memory_same(&world->memory, vmm.region[i].offset + at, vmm.region[i].base + at,
                              HUGE),
                  "region %u is wrong at %llu", i, (unsigned long long)at);
    }
    return 0;
}

static void odd_regions(enum world_memory kind)
{
    struct client client[2];
    need_huge_pages(8);
    world = world_make(kind, (12 << 20) + 3 * PAGE + 99);
    static const char *const options[] = {"--allow-part", NULL};
    world_serve(world, options);
    for (unsigned i = 0; i < 2; i++) { // the second one finds what the first one had made
        client_start(&client[i], odd_regions_main, NULL);
        cr_assert_eq(client_wait(&client[i]), 0);
        if (i == 0)
            cr_assert_gt(world_status(world, "cache", "misses"), 0);
    }
    cr_assert_eq(world_status(world, "cache", "hits"), world_status(world, "cache", "misses"));
    world_stop(world);
}

Test(read_ahead, regions_at_odd_places_of_the_image)
{
    odd_regions(MIXED);
}

Test(read_ahead, regions_at_odd_places_of_an_image_without_zeros)
{
    odd_regions(DISTINCT);
}

static bool is_taken(void *bytes)
{
    return world_status(world, "cache", "memory") == *(const long long *)bytes;
}

// Memory of the cache that is taken at once is there before anybody needs it, holds the frames and
// the 2 MiB pages then, and is taken by whoever succeeds a dead engine.
Test(read_ahead, into_memory_that_was_taken_at_the_start)
{
    static const char *const options[] = {"--cache", "64M", "--cache-prealloc", "48M", NULL};
    long long taken = 48 << 20;
    world = world_make(DISTINCT, 16 << 20);
    world_serve(world, options);
    for (unsigned round = 0; round < 2; round++) {
        struct client client;
        uint32_t page_bytes = PAGE;
        cr_assert(wait_until(is_taken, &taken), "%lld bytes",
                  world_status(world, "cache", "memory"));
        cr_assert_eq(world_status(world, "cache", "bytes"), 0);
        client_start(&client, touch_all_main, &page_bytes);
        cr_assert_eq(client_wait(&client), 0);
        cr_assert_geq(world_status(world, "cache", "bytes"), 16 << 20);
        cr_assert_eq(world_status(world, "cache", "memory"), taken);
        cr_assert(server_kill_engine(&world->server));
    }
    cr_assert(wait_until(is_taken, &taken));
    world_stop(world);
}

// The host's memory is said to be scarce: what frames need is taken, and no more.
Test(read_ahead, into_no_more_memory_than_the_host_has)
{
    static const char *const options[] = {
        "--cache", "64M", "--cache-prealloc", "48M", "--replay-reserve", "100", NULL};
    struct client client;
    uint32_t page_bytes = PAGE;
    world = world_make(DISTINCT, 16 << 20);
    world_serve(world, options);
    client_start(&client, touch_all_main, &page_bytes);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_geq(world_status(world, "cache", "memory"), 16 << 20);
    cr_assert_leq(world_status(world, "cache", "memory"), 24 << 20);
    world_stop(world);
}
