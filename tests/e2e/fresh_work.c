// SPDX-License-Identifier: Apache-2.0
//
// A guest that takes memory after its restore: pages that its image knows as zeros, and pages that
// it has given back. The zeros around a fault come with it, and nothing of that may ever be seen in
// the bytes.
#include <criterion/criterion.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "tests/support/points.h"
#include "tests/support/world.h"

enum { BYTES = 32 << 20, PAGES = BYTES / PAGE, BLOCK = 512, VAIN = 512 };

TestSuite(fresh_work, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

// --- a guest that fills its memory ---

enum order { UP, DOWN, BLOCKS };

static uint64_t mark_of(uint32_t page)
{
    return (page + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

// The first touch is a write, as a guest's is.
static void put_mark(const struct vmm *vmm, uint32_t page)
{
    uint8_t *at = vmm_page(vmm, page);
    uint64_t mark = mark_of(page);
    uint64_t before = __atomic_exchange_n((uint64_t *)(void *)at, mark, __ATOMIC_RELAXED);
    CHECK(before == 0 && all_zero(at + sizeof(mark), PAGE - sizeof(mark)), "page %u is not zeros",
          page);
    memcpy(at + PAGE - sizeof(mark), &mark, sizeof(mark));
}

static void check_mark(const struct vmm *vmm, uint32_t page)
{
    const uint8_t *at = vmm_page(vmm, page);
    uint64_t mark = mark_of(page);
    CHECK(memcmp(at, &mark, sizeof(mark)) == 0 &&
              memcmp(at + PAGE - sizeof(mark), &mark, sizeof(mark)) == 0 &&
              all_zero(at + sizeof(mark), PAGE - 2 * sizeof(mark)),
          "page %u has lost what was written to it", page);
}

static void fill_down(const struct vmm *vmm, uint32_t first, uint32_t end)
{
    for (uint32_t page = end; page > first; page--)
        put_mark(vmm, page - 1);
}

static void fill_blocks(const struct vmm *vmm)
{
    uint32_t *order = random_order(PAGES / BLOCK, 11);
    for (uint32_t i = 0; i < PAGES / BLOCK; i++)
        fill_down(vmm, order[i] * BLOCK, (order[i] + 1) * BLOCK);
    free(order);
}

static void fill(const struct vmm *vmm, enum order order)
{
    if (order == BLOCKS)
        fill_blocks(vmm);
    if (order == DOWN)
        fill_down(vmm, 0, PAGES);
    for (uint32_t page = 0; order == UP && page < PAGES; page++)
        put_mark(vmm, page);
    for (uint32_t page = 0; page < PAGES; page++)
        check_mark(vmm, page);
}

struct wish {
    enum order order;
    bool removed; // all memory is given back first
};

static int fill_main(int channel, struct client_shared *shared, void *arg)
{
    const struct wish *wish = arg;
    struct vmm vmm;
    (void)shared;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    if (wish->removed)
        vmm_remove(&vmm, 0, PAGES);
    fill(&vmm, wish->order);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

static void end(struct client *client)
{
    client_tell(client, 'e');
    cr_assert_eq(client_wait(client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
}

static void expect_few_faults(struct wish wish)
{
    struct client client;
    client_start(&client, fill_main, &wish);
    cr_assert(client_says(&client, 'd'), "%s", client_failure());
    cr_assert_lt(world_status(world, "faults", "read"), PAGES / 100);
    cr_assert_gt(world_status(world, "pages", "zeroed_ahead"), PAGES * 9 / 10);
    cr_assert_gt(world_status(world, "pages", "zeroed_ahead_used"), PAGES / 2);
    end(&client);
    world_stop(world);
}

Test(fresh_work, takes_few_faults)
{
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    expect_few_faults((struct wish){.order = UP});
}

Test(fresh_work, takes_few_faults_downwards)
{
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    expect_few_faults((struct wish){.order = DOWN});
}

// How Linux clears huge pages. No sweep goes from one to the next.
Test(fresh_work, takes_few_faults_block_by_block)
{
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    expect_few_faults((struct wish){.order = BLOCKS});
}

Test(fresh_work, in_memory_that_was_given_back_takes_few_faults)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    expect_few_faults((struct wish){.order = BLOCKS, .removed = true});
}

static void expect_a_fault_for_each(const char *const *options)
{
    struct wish wish = {.order = DOWN};
    struct client client;
    world = world_make(EMPTY, BYTES);
    world_serve(world, options);
    client_start(&client, fill_main, &wish);
    cr_assert(client_says(&client, 'd'), "%s", client_failure());
    cr_assert_geq(world_status(world, "faults", "read"), PAGES);
    cr_assert_eq(world_status(world, "pages", "zeroed_ahead"), 0);
    end(&client);
    world_stop(world);
}

Test(fresh_work, brings_nothing_ahead_where_that_is_switched_off)
{
    static const char *const off[] = {"--prefetch", "0", NULL};
    expect_a_fault_for_each(off);
}

Test(fresh_work, is_bounded_by_the_option)
{
    static const char *const none[] = {"--prefetch-vm", "0", NULL};
    expect_a_fault_for_each(none);
}

// --- a guest that does not fill it ---

// A short sweep, which makes more of the same likely; then only a page here and there.
static int touch_sparsely(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    for (uint32_t page = 0; page < 40; page++)
        put_mark(&vmm, page);
    uint32_t *order = random_order(PAGES / 64, 5);
    for (uint32_t i = 0; i < PAGES / 64; i++)
        put_mark(&vmm, order[i] * 64 + 63);
    free(order);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

Test(fresh_work, that_is_none_gets_little_in_vain)
{
    struct client client;
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    client_start(&client, touch_sparsely, NULL);
    cr_assert(client_says(&client, 'd'), "%s", client_failure());
    long long used = world_status(world, "pages", "zeroed_ahead_used");
    cr_assert_leq(world_status(world, "pages", "zeroed_ahead") - used, VAIN + used / 8 + 1);
    cr_assert_lt(used, 256);
    end(&client);
    world_stop(world);
}

// A guest that only reads gets no more than in any other sweep.
static int read_all(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 1, VMM_UP, true);
    return 0;
}

// --- pages that are there, in the middle of zeros ---

// The VMM has put pages of its own there, of which the engine knows nothing.
static int among_others(int channel, struct client_shared *shared, void *arg)
{
    static uint8_t own[PAGE];
    struct vmm vmm;
    (void)channel;
    (void)shared;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    put_mark(&vmm, 0);
    memset(own, 0x5a, sizeof(own));
    for (uint32_t page = 100; page < PAGES; page += 211) {
        struct uffdio_copy copy = {
            .dst = (uintptr_t)vmm_page(&vmm, page), .src = (uintptr_t)own, .len = PAGE};
        CHECK(ioctl(vmm.uffd, UFFDIO_COPY, &copy) == 0, "copy");
    }
    for (uint32_t i = 1; i < PAGES; i++) {
        uint32_t page = *(const enum order *)arg == UP ? i : PAGES - i;
        if (page >= 100 && (page - 100) % 211 == 0)
            CHECK(memcmp(vmm_page(&vmm, page), own, PAGE) == 0, "page %u is another", page);
        else
            put_mark(&vmm, page);
    }
    return 0;
}

// Zeros of the image among its bytes, some of which are given back: what is not zeros never is.
static int among_bytes(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    bool down = *(const enum order *)arg == DOWN;
    (void)channel;
    (void)shared;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    for (uint32_t page = 7; page < PAGES; page += 64)
        vmm_remove(&vmm, page, 3);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t page = down ? PAGES - 1 - i : i;
        bool removed = page % 64 >= 7 && page % 64 < 10;
        if (removed || all_zero(world->memory.data + vmm_page_offset(&vmm, page), PAGE))
            put_mark(&vmm, page);
    }
    for (uint32_t page = 0; page < PAGES; page++) {
        bool removed = page % 64 >= 7 && page % 64 < 10;
        if (removed || all_zero(world->memory.data + vmm_page_offset(&vmm, page), PAGE))
            check_mark(&vmm, page);
        else
            vmm_check(&vmm, page);
    }
    return 0;
}

static void run(client_main *main, void *arg)
{
    struct client client;
    client_start(&client, main, arg);
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
}

Test(fresh_work, is_not_to_read)
{
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    run(read_all, NULL);
    cr_assert_eq(world_status(world, "pages", "zeroed_ahead"), 0);
    cr_assert_gt(world_status(world, "pages", "ahead"), PAGES / 2);
    world_stop(world);
}

Test(fresh_work, leaves_what_is_there)
{
    enum order order = UP;
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    run(among_others, &order);
    order = DOWN;
    run(among_others, &order);
    world_stop(world);
}

Test(fresh_work, among_bytes_of_the_image)
{
    enum order order = UP;
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    run(among_bytes, &order);
    order = DOWN;
    run(among_bytes, &order);
    cr_assert_gt(world_status(world, "pages", "zeroed_ahead"), 0);
    world_stop(world);
}

// --- a storm ---
//
// Each thread has every THREADSth page: so each run is everybody's. It writes to its pages, finds
// that there again, gives some of them back, and finds zeros in those.

enum { THREADS = 4, STORM_BYTES = 8 << 20, STORM_PAGES = STORM_BYTES / PAGE, ROUNDS = 4 };

struct thread {
    struct vmm *vmm;
    pthread_t id;
    uint32_t number;
};

static void storm_page(struct vmm *vmm, uint32_t page, uint64_t *seed)
{
    if (random_next(seed) % 2 == 0) {
        vmm_remove(vmm, page, 1);
        put_mark(vmm, page); // finds zeros there
    }
    check_mark(vmm, page);
}

// Two threads sweep up and two down.
static uint32_t in_turn(uint32_t thread, uint32_t i)
{
    uint32_t mine = STORM_PAGES / THREADS;
    return (thread % 2 == 0 ? i : mine - 1 - i) * THREADS + thread;
}

static void *storm_thread(void *arg)
{
    const struct thread *thread = arg;
    struct vmm *vmm = thread->vmm;
    uint64_t seed = thread->number + 1;
    for (uint32_t i = 0; i < STORM_PAGES / THREADS; i++)
        put_mark(vmm, in_turn(thread->number, i));
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < STORM_PAGES / THREADS; i++)
            storm_page(vmm, in_turn(thread->number, i), &seed);
    }
    return NULL;
}

static int storm_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    struct thread threads[THREADS];
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    for (uint32_t i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){.vmm = &vmm, .number = i};
        CHECK(pthread_create(&threads[i].id, NULL, storm_thread, &threads[i]) == 0, "thread");
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i].id, NULL);
    return 0;
}

static void storm(enum world_memory kind, unsigned kills)
{
    struct client client;
    world = world_make(kind, STORM_BYTES);
    world_serve(world, NULL);
    client_start(&client, storm_main, NULL);
    for (unsigned i = 0; i < kills; i++) {
        unsigned ready = server_count_log(&world->server, "event=ready pid=");
        world->server.deaths++;
        cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
        cr_assert(server_wait_log(&world->server, "event=ready pid=", ready + 1));
    }
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert_gt(world_status(world, "pages", "removed"), 0);
    world_stop(world);
}

Test(fresh_work, of_many_threads_that_give_memory_back)
{
    storm(EMPTY, 0);
}

Test(fresh_work, of_many_threads_outlives_engines)
{
    storm(EMPTY, 8);
}

// --- an engine that dies in the middle of a run ---

static void live_through(const char *point)
{
    struct wish wish = {.order = DOWN};
    struct client client;
    need_points();
    world = world_make(EMPTY, BYTES);
    point_begin(world, point);
    world_serve(world, NULL);
    point_end();
    world->server.deaths++;
    point_arm(world);
    client_start(&client, fill_main, &wish);
    cr_assert(client_says(&client, 'd'), "%s", client_failure());
    cr_assert(point_struck(world), "no engine came to %s", point);
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(fresh_work, outlives_an_engine_that_has_just_put_zeros)
{
    live_through("zeroed:9");
}

Test(fresh_work, outlives_an_engine_that_has_put_a_part)
{
    live_through("zeros_before:7");
}
