// SPDX-License-Identifier: Apache-2.0
//
// Memory that the guest gives back (balloon, free page reporting): zeros from then on, whatever
// else goes on at the same time.
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/world.h"

TestSuite(remove, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

static void run(client_main *main, void *arg)
{
    struct client client;
    client_start(&client, main, arg);
    cr_assert_eq(client_wait(&client), 0);
}

static void attach(struct vmm *vmm, uint32_t page_bytes, unsigned regions)
{
    vmm_map(vmm, &world->memory, page_bytes, regions, VMM_MAIN);
    vmm_handshake(vmm, world->socket);
}

static void remove_pages(struct vmm *vmm, uint32_t page, uint32_t count)
{
    vmm_remove(vmm, page, count);
    for (uint32_t i = 0; i < count; i++)
        vmm->removed[page + i] = true;
}

// --- one after the other ---

// Pages that were touched, pages that were not, whole regions; then everything is looked at.
static int in_turn(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    attach(&vmm, *(const uint32_t *)arg, 2);
    uint32_t half = vmm.pages / 2;
    remove_pages(&vmm, 1, 1); // before its first touch
    for (uint32_t page = 2; page < half; page++)
        vmm_check(&vmm, page);
    remove_pages(&vmm, 2, half - 3); // after it
    vmm_touch_all(&vmm, 2, VMM_RANDOM, false);
    remove_pages(&vmm, 2, 1); // zeros that were touched, again
    remove_pages(&vmm, half, vmm.pages - half);
    vmm_touch_all(&vmm, 2, VMM_UP, true);
    return 0;
}

Test(remove, then_touch_is_zeros)
{
    uint32_t page_bytes = PAGE;
    world = world_make(DISTINCT, 8 << 20);
    world_serve(world, NULL);
    run(in_turn, &page_bytes);
    cr_assert_eq(world_status(world, "pages", "removed"), 2047);
    world_stop(world);
}

Test(remove, then_touch_is_zeros_on_huge_pages)
{
    uint32_t page_bytes = HUGE;
    need_huge_pages(8);
    world = world_make(DISTINCT, 16 << 20);
    world_serve(world, NULL);
    run(in_turn, &page_bytes);
    world_stop(world);
}

// --- while others touch the same pages ---
//
// What a reader may see of a page follows from what the remover had done before it looked and
// after: bytes if no removal was complete before, zeros if one had begun after.

enum { NOT_REMOVED, REMOVING, REMOVED };
enum { ROUNDS = 6, READERS = 3 };

struct race {
    struct vmm vmm;
    _Atomic uint8_t *state;
    uint32_t *order;
    _Atomic bool done;
    uint64_t seed;
};

static void read_one(struct race *race, uint32_t page)
{
    // All pages of the file are noise without a zero word.
    const volatile uint64_t *word =
        (const volatile uint64_t *)(const void *)vmm_page(&race->vmm, page);
    uint8_t before = race->state[page];
    uint64_t value = *word;
    uint8_t after = race->state[page];
    uint64_t there;
    memcpy(&there, race->vmm.memory->data + vmm_page_offset(&race->vmm, page), sizeof(there));
    CHECK(value == there || value == 0, "page %u has bytes of another", page);
    if (value == there)
        CHECK(before != REMOVED, "page %u has its bytes again after it was removed", page);
    else
        CHECK(after != NOT_REMOVED, "page %u is zero and nobody removed it", page);
}

static void *reader(void *arg)
{
    struct race *race = arg;
    uint64_t seed = race->seed ^ (uint64_t)(uintptr_t)&seed;
    while (!race->done)
        read_one(race, (uint32_t)(random_next(&seed) % race->vmm.pages));
    return NULL;
}

static void *remover(void *arg)
{
    struct race *race = arg;
    for (uint32_t i = 0; i < race->vmm.pages; i++) {
        uint32_t page = race->order[i];
        race->state[page] = REMOVING;
        vmm_remove(&race->vmm, page, 1);
        race->state[page] = REMOVED;
        read_one(race, page);
    }
    race->done = true;
    return NULL;
}

static void one_race(uint32_t page_bytes, uint64_t seed)
{
    struct race race = {.seed = seed};
    pthread_t threads[READERS];
    attach(&race.vmm, page_bytes, 1);
    race.state = calloc(race.vmm.pages, 1);
    race.order = random_order(race.vmm.pages, seed);
    for (unsigned i = 0; i < READERS; i++)
        CHECK(pthread_create(&threads[i], NULL, reader, &race) == 0, "pthread_create");
    remover(&race);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t page = 0; page < race.vmm.pages; page++)
        vmm_check_zero(&race.vmm, page);
}

static int races(int channel, struct client_shared *shared, void *arg)
{
    uint32_t page_bytes = *(const uint32_t *)arg;
    (void)channel;
    (void)shared;
    for (uint64_t seed = 1; seed <= ROUNDS; seed++)
        one_race(page_bytes, seed);
    return 0;
}

Test(remove, while_others_touch)
{
    uint32_t page_bytes = PAGE;
    world = world_make(DISTINCT, 4 << 20);
    world_serve(world, NULL);
    run(races, &page_bytes);
    world_stop(world);
}

Test(remove, while_others_touch_huge_pages)
{
    uint32_t page_bytes = HUGE;
    need_huge_pages(4 * ROUNDS);
    world = world_make(DISTINCT, 8 << 20);
    world_serve(world, NULL);
    run(races, &page_bytes);
    world_stop(world);
}

Test(remove, while_everything_is_populated)
{
    static const char *const populate[] = {"--populate", NULL};
    uint32_t page_bytes = PAGE;
    world = world_make(DISTINCT, 4 << 20);
    world_handler(world, populate);
    run(races, &page_bytes);
    world_stop(world);
}

Test(remove, while_huge_pages_are_populated)
{
    static const char *const populate[] = {"--populate", NULL};
    uint32_t page_bytes = HUGE;
    need_huge_pages(4 * ROUNDS);
    world = world_make(DISTINCT, 8 << 20);
    world_handler(world, populate);
    run(races, &page_bytes);
    world_stop(world);
}

// --- very many of them ---

enum { FLOOD = 100000, FLOOD_THREADS = 4, FLOOD_GROWTH_KIB = 8192 };

static void *flood(void *arg)
{
    struct vmm *vmm = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed;
    for (unsigned i = 0; i < FLOOD / FLOOD_THREADS; i++)
        vmm_remove(vmm, (uint32_t)(random_next(&seed) % vmm->pages), 1);
    return NULL;
}

static int flood_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    pthread_t threads[FLOOD_THREADS];
    (void)shared;
    (void)arg;
    attach(&vmm, PAGE, 1);
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 'g');
    for (unsigned i = 0; i < FLOOD_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, flood, &vmm) == 0, "pthread_create");
    for (unsigned i = 0; i < FLOOD_THREADS; i++)
        pthread_join(threads[i], NULL);
    vmm_remove(&vmm, 0, vmm.pages);
    for (uint32_t page = 0; page < vmm.pages; page += 61)
        vmm_check_zero(&vmm, page);
    return 0;
}

Test(remove, a_flood_takes_no_memory)
{
    struct client client;
    world = world_make(DISTINCT, 32 << 20);
    world_serve(world, NULL);
    client_start(&client, flood_main, NULL);
    cr_assert(client_says(&client, 'a'));
    long before = server_memory_kib(&world->server);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    long after = server_memory_kib(&world->server);
    cr_assert_lt(after - before, FLOOD_GROWTH_KIB, "it grew from %ld to %ld KiB", before, after);
    cr_assert_geq(world_status(world, "pages", "removed"), FLOOD);
    world_stop(world);
}
