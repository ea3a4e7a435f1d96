// SPDX-License-Identifier: Apache-2.0
//
// Handshakes that are well-formed and wrong: for memory of another size than the image's, and for
// memory that was there before anybody could serve it. What would be wrong bytes later is refused.
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(fit, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { BYTES = 4 << 20, SIGBUS_STATUS = 128 + SIGBUS };

static struct world *world;

static void begin(const char *const *options)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, options);
}

static void hand_over(struct vmm *vmm, const char *text)
{
    vmm->socket = vmm_connect(world->socket);
    vmm_send(vmm->socket, text, strlen(text), &vmm->uffd, 1);
}

// --- its size ---

// Half of the memory file, as a VM of another size would have it.
static void map_half(struct vmm *vmm)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it may end in SIGBUS
    vmm_map(vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm->regions = 1;
    vmm->pages /= 2;
}

static int half_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    map_half(&vmm);
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 1, VMM_UP, false);
    return 0;
}

static int part_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char text[VMM_TEXT];
    (void)channel;
    (void)shared;
    (void)arg;
    map_half(&vmm);
    size_t length = vmm_handshake_text(&vmm, text);
    snprintf(text + length - 2, sizeof(text) - length, ",\"part\":true}]");
    hand_over(&vmm, text);
    vmm_touch_all(&vmm, 1, VMM_UP, false);
    return 0;
}

static int run(client_main *main, void *arg)
{
    struct client client;
    client_start(&client, main, arg);
    return client_wait(&client);
}

Test(fit, of_an_image_that_is_larger_than_the_vm_is_refused)
{
    begin(NULL);
    cr_assert_eq(run(half_main, NULL), SIGBUS_STATUS);
    cr_assert(server_wait_log(
        &world->server, "reason=\"its regions have 2097152 bytes, but the image has 4194304", 1));
    world_stop(world);
}

Test(fit, of_a_part_is_taken_from_a_client_that_says_so)
{
    begin(NULL);
    cr_assert_eq(run(part_main, NULL), 0);
    cr_assert_eq(server_count_log(&world->server, "event=refuse"), 0);
    world_stop(world);
}

Test(fit, of_a_part_is_taken_where_that_is_allowed)
{
    static const char *const options[] = {"--allow-part", NULL};
    begin(options);
    cr_assert_eq(run(half_main, NULL), 0);
    world_stop(world);
}

// --- memory that is there already ---

enum how { READ_BEFORE, WRITTEN_BEFORE, POPULATED, LOCKED };

static void fill(struct vmm *vmm, enum how how)
{
    const struct vmm_region *last = &vmm->region[vmm->regions - 1];
    switch (how) {
    case READ_BEFORE:
        (void)*(volatile const uint8_t *)(last->base + last->bytes - 1);
        break;
    case WRITTEN_BEFORE:
        *(volatile uint8_t *)(last->base + last->bytes - 1) = 1;
        break;
    case POPULATED:
        CHECK(mmap(last->base, last->bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE |
                       (vmm->page_bytes == HUGE ? MAP_HUGETLB | (21 << 26) : 0),
                   -1, 0) != MAP_FAILED,
              "mmap: %s", strerror(errno));
        break;
    case LOCKED: // what is mapped from now on, as whoever calls it at its start
        CHECK(mlockall(MCL_FUTURE) == 0, "mlockall: %s", strerror(errno));
        CHECK(mmap(last->base, last->bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
              "mmap: %s", strerror(errno));
        break;
    }
}

struct touched {
    enum how how;
    uint32_t page_bytes;
};

static int touched_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct touched *touched = arg;
    (void)channel;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it may end in SIGBUS
    vmm_map_memory(&vmm, &world->memory, touched->page_bytes, 2, VMM_MAIN);
    fill(&vmm, touched->how);
    vmm.uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm.uffd, 0);
    vmm_register(&vmm);
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 1, VMM_UP, false);
    return 0;
}

static void refuses_touched(enum how how, uint32_t page_bytes)
{
    struct touched touched = {how, page_bytes};
    begin(NULL);
    cr_assert_eq(run(touched_main, &touched), SIGBUS_STATUS);
    cr_assert(server_wait_log(&world->server,
                              "faults=poisoned reason=\"some of its pages were there before", 1));
    world_stop(world);
}

Test(fit, of_memory_that_was_read_before_is_refused)
{
    refuses_touched(READ_BEFORE, PAGE);
}

Test(fit, of_memory_that_was_written_before_is_refused)
{
    refuses_touched(WRITTEN_BEFORE, PAGE);
}

Test(fit, of_memory_that_was_populated_is_refused)
{
    refuses_touched(POPULATED, PAGE);
}

Test(fit, of_huge_pages_that_were_populated_is_refused)
{
    need_huge_pages(2);
    refuses_touched(POPULATED, HUGE);
}

Test(fit, of_memory_that_was_locked_is_refused)
{
    refuses_touched(LOCKED, PAGE);
}
