// SPDX-License-Identifier: Apache-2.0
//
// Every page of a guest, byte for byte: each version of the handshake, both page sizes, both verbs.
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "tests/support/world.h"

TestSuite(touch, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum verb { SERVE, HANDLER };

struct way {
    enum verb verb;
    uint32_t page_bytes;
    uint64_t bytes;
    unsigned regions;
    enum vmm_protocol protocol;
    unsigned threads;
    enum vmm_order order;
    bool share;
};

static const struct way ways[] = {
    {SERVE, PAGE, 12 << 20, 1, VMM_1_1, 4, VMM_RANDOM, false},
    {SERVE, PAGE, 12 << 20, 2, VMM_1_7, 4, VMM_UP, false},
    {SERVE, PAGE, 48 << 20, 3, VMM_1_12, 8, VMM_RANDOM, true},
    {SERVE, PAGE, (12 << 20) + 1234, 4, VMM_MAIN, 2, VMM_DOWN, false},
    {SERVE, PAGE, 48 << 20, 1, VMM_MAIN, 1, VMM_UP, false},
    {HANDLER, PAGE, 12 << 20, 1, VMM_1_1, 4, VMM_UP, false},
    {HANDLER, PAGE, (48 << 20) + 4096, 3, VMM_MAIN, 8, VMM_RANDOM, true},
    {SERVE, HUGE, 16 << 20, 1, VMM_1_7, 4, VMM_RANDOM, false},
    {SERVE, HUGE, (14 << 20) + 40960, 2, VMM_1_12, 4, VMM_UP, true},
    {HANDLER, HUGE, 16 << 20, 2, VMM_MAIN, 4, VMM_RANDOM, false},
    {HANDLER, HUGE, (14 << 20) + 1, 1, VMM_1_7, 1, VMM_DOWN, false},
};

static struct world *world;

static int touch_everything(int channel, struct client_shared *shared, void *arg)
{
    const struct way *way = arg;
    struct vmm vmm;
    (void)channel;
    vmm_map(&vmm, &world->memory, way->page_bytes, way->regions, way->protocol);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, way->threads, way->order, way->share);
    return 0;
}

static void start(enum verb verb)
{
    if (verb == SERVE)
        world_serve(world, NULL);
    else
        world_handler(world, NULL);
}

static void one_way(struct way way)
{
    struct client client;
    if (way.page_bytes == HUGE)
        need_huge_pages(8);
    world = world_make(MIXED, way.bytes);
    start(way.verb);
    client_start(&client, touch_everything, &way);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
    world_stop(world);
}

// An index: Criterion copies parameters into another process.
ParameterizedTestParameters(touch, every_page_is_right)
{
    static unsigned index[sizeof(ways) / sizeof(ways[0])];
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        index[i] = i;
    return cr_make_param_array(unsigned, index, sizeof(ways) / sizeof(ways[0]), NULL);
}

ParameterizedTest(unsigned *index, touch, every_page_is_right)
{
    one_way(ways[*index]);
}

// What Firecracker's versions send, written out.
Test(touch, the_handshake_is_firecrackers)
{
    static const char *const text[VMM_PROTOCOLS] = {
        "[{\"base_host_virt_addr\":140000000000000,\"size\":4096,\"offset\":0},"
        "{\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":4096}]",
        "[{\"base_host_virt_addr\":140000000000000,\"size\":4096,\"offset\":0,"
        "\"page_size_kib\":4096},"
        "{\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":4096,\"page_size_kib\":4096}]",
        "[{\"base_host_virt_addr\":140000000000000,\"size\":4096,\"offset\":0,\"page_size\":4096,"
        "\"page_size_kib\":4096},"
        "{\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":4096,\"page_size\":4096,"
        "\"page_size_kib\":4096}]",
        "[{\"base_host_virt_addr\":140000000000000,\"size\":4096,\"offset\":0,\"page_size\":4096,"
        "\"page_size_kib\":4096},"
        "{\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":4096,\"page_size\":4096,"
        "\"page_size_kib\":4096}]",
    };
    for (enum vmm_protocol protocol = VMM_1_1; protocol < VMM_PROTOCOLS; protocol++) {
        char sent[VMM_TEXT] = {0};
        struct vmm vmm = {.protocol = protocol, .page_bytes = PAGE, .regions = 2};
        vmm.region[0] = (struct vmm_region){(uint8_t *)140000000000000, 4096, 0};
        vmm.region[1] = (struct vmm_region){(uint8_t *)8192, 8192, 4096};
        vmm_handshake_text(&vmm, sent);
        cr_assert_str_eq(sent, text[protocol]);
    }
}

// --- many touchers of one page ---

enum { CROWD = 16 };

static struct {
    pthread_barrier_t barrier;
    struct vmm *vmm;
} crowd;

static void *touch_together(void *arg)
{
    (void)arg;
    for (uint32_t page = 0; page < crowd.vmm->pages; page++) {
        pthread_barrier_wait(&crowd.barrier);
        vmm_check(crowd.vmm, page);
    }
    return NULL;
}

static int crowd_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    pthread_t threads[CROWD];
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    crowd.vmm = &vmm;
    pthread_barrier_init(&crowd.barrier, NULL, CROWD);
    for (unsigned i = 0; i < CROWD; i++)
        CHECK(pthread_create(&threads[i], NULL, touch_together, NULL) == 0, "pthread_create");
    for (unsigned i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

Test(touch, a_crowd_on_one_page)
{
    struct client client;
    world = world_make(MIXED, 1 << 20);
    world_serve(world, NULL);
    client_start(&client, crowd_main, NULL);
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- a thread that is signalled all the time while it waits: its faults come again and again ---

static void nothing(int signal)
{
    (void)signal;
}

static void *touch_signalled(void *arg)
{
    struct vmm *vmm = arg;
    for (uint32_t page = 0; page < vmm->pages; page++)
        vmm_check(vmm, page);
    return NULL;
}

static int signalled_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    pthread_t thread;
    struct sigaction action = {.sa_handler = nothing};
    (void)channel;
    (void)arg;
    sigaction(SIGUSR1, &action, NULL);
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    CHECK(pthread_create(&thread, NULL, touch_signalled, &vmm) == 0, "pthread_create");
    while (shared->progress < vmm.pages)
        pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
    return 0;
}

Test(touch, a_thread_that_is_signalled_while_it_waits)
{
    struct client client;
    world = world_make(MIXED, 2 << 20);
    world_serve(world, NULL);
    client_start(&client, signalled_main, NULL);
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- pages that come by another way while somebody waits for them: the answer that a page is there
// already must wake its waiter (handlers that did not do so hung once in millions of faults) ---

enum { WAITERS = 8 };

struct waiter {
    pthread_t thread;
    struct vmm *vmm;
    uint32_t page;
};

static void *wait_for_page(void *arg)
{
    const struct waiter *waiter = arg;
    vmm_check(waiter->vmm, waiter->page);
    return NULL;
}

static void bring_page(const struct vmm *vmm, uint32_t page)
{
    struct uffdio_copy copy = {.dst = (uintptr_t)vmm_page(vmm, page),
                               .src = (uintptr_t)(vmm->memory->data + vmm_page_offset(vmm, page)),
                               .len = vmm->page_bytes,
                               .mode = UFFDIO_COPY_MODE_DONTWAKE};
    CHECK(ioctl(vmm->uffd, UFFDIO_COPY, &copy) == 0, "UFFDIO_COPY");
}

// The server does not run while the threads begin to wait and their pages are brought.
static int overtaken_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    struct waiter waiters[WAITERS];
    (void)shared;
    vmm_map(&vmm, &world->memory, *(const uint32_t *)arg, 1, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 't');
    for (unsigned i = 0; i < WAITERS; i++) {
        waiters[i] = (struct waiter){.vmm = &vmm, .page = (i + 1) * vmm.pages / (WAITERS + 1)};
        CHECK(pthread_create(&waiters[i].thread, NULL, wait_for_page, &waiters[i]) == 0,
              "a thread");
    }
    await_test(channel, 'c');
    for (unsigned i = 0; i < WAITERS; i++)
        bring_page(&vmm, waiters[i].page);
    tell_test(channel, 'd');
    for (unsigned i = 0; i < WAITERS; i++)
        pthread_join(waiters[i].thread, NULL);
    return 0;
}

static void overtake(uint32_t page_bytes, uint64_t bytes)
{
    struct client client;
    world = world_make(MIXED, bytes);
    world_serve(world, NULL);
    client_start(&client, overtaken_main, &page_bytes);
    cr_assert(client_says(&client, 'a'));
    server_pause(&world->server);
    client_tell(&client, 't');
    cr_assert(client_waits(&client, WAITERS));
    client_tell(&client, 'c');
    cr_assert(client_says(&client, 'd'));
    server_resume(&world->server);
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(touch, pages_that_came_by_another_way)
{
    overtake(PAGE, 1 << 20);
}

Test(touch, huge_pages_that_came_by_another_way)
{
    need_huge_pages(WAITERS + 1);
    overtake(HUGE, (WAITERS + 1) * HUGE);
}

// --- many VMs ---

enum { CLIENTS = 32 };

static bool no_more_descriptors(void *most)
{
    return server_descriptors(&world->server) <= *(const unsigned *)most;
}

Test(touch, many_vms_on_one_image)
{
    struct client clients[CLIENTS];
    struct way way = {SERVE, PAGE, 0, 2, VMM_MAIN, 2, VMM_RANDOM, true};
    world = world_make(MIXED, 4 << 20);
    world_serve(world, NULL);
    unsigned most = server_descriptors(&world->server) + 4; // the image stays open a while
    for (unsigned i = 0; i < CLIENTS; i++)
        client_start(&clients[i], touch_everything, &way);
    for (unsigned i = 0; i < CLIENTS; i++)
        cr_expect_eq(client_wait(&clients[i]), 0, "client %u", i);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", CLIENTS));
    cr_assert(wait_until(no_more_descriptors, &most));
    cr_assert_eq(world_status(world, "", "vms"), 0);
    cr_assert_eq(world_status(world, "faults", "poisoned"), 0);
    cr_assert_eq(world_status(world, "faults", "parked"), 0);
    world_stop(world);
}

// One storms while the other walks: both end, and neither's bytes are the other's.
Test(touch, two_images_and_a_storm)
{
    struct client storm;
    struct client calm;
    struct memory other;
    struct way way = {SERVE, PAGE, 0, 1, VMM_MAIN, 8, VMM_RANDOM, false};
    struct way slow = {SERVE, PAGE, 0, 1, VMM_MAIN, 1, VMM_UP, false};
    world = world_make(MIXED, 8 << 20);
    memory_make_distinct(&other, temp_path(&world->temp, "other"), 8 << 20, 99);
    world_pack(world, temp_path(&world->temp, "other"), "other");
    world_serve(world, NULL);
    client_start(&storm, touch_everything, &way);
    struct world two = *world;
    two.memory = other;
    two.socket = temp_path(&world->temp, "sockets/other.sock");
    world = &two;
    client_start(&calm, touch_everything, &slow);
    cr_assert_eq(client_wait(&calm), 0);
    cr_assert_eq(client_wait(&storm), 0);
    memory_free(&other);
    world_stop(&two);
}

// --- a VMM that changes what it shares with the engine ---

static int blocking_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 0);
    CHECK(fcntl(vmm.uffd, F_SETFL, 0) == 0, "F_SETFL");
    vmm_check(&vmm, 1);
    tell_test(channel, 'b');
    await_test(channel, 'e');
    return 0;
}

static int touching_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

// O_NONBLOCK is a flag of the open file, and so the VMM's as well: a worker must not sleep in its
// read().
Test(touch, a_userfaultfd_that_blocks_stops_nobody)
{
    static const char *const one_worker[] = {"--workers", "1", NULL};
    struct client client;
    struct client other;
    world = world_make(MIXED, 1 << 20);
    world_serve(world, one_worker);
    client_start(&client, blocking_main, NULL);
    cr_assert(client_says(&client, 'b'));
    client_start(&other, touching_main, NULL);
    cr_assert_eq(client_wait(&other), 0);
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}
