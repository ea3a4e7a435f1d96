// SPDX-License-Identifier: Apache-2.0
//
// Pages that are installed together with one that was asked for: in a sweep, and only then.
#include <criterion/criterion.h>

#include "tests/support/world.h"

TestSuite(neighbours, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

static void run(client_main *main, void *arg)
{
    struct client client;
    client_start(&client, main, arg);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
}

static int touch(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    vmm_map(&vmm, &world->memory, PAGE, 3, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 1, *(enum vmm_order *)arg, true);
    return 0;
}

Test(neighbours, a_sweep_takes_a_fault_for_many_pages)
{
    enum vmm_order order = VMM_UP;
    world = world_make(MIXED, 16 << 20);
    world_serve(world, NULL);
    run(touch, &order);
    cr_assert_lt(world_status(world, "faults", "read"), 4096 / 4);
    cr_assert_gt(world_status(world, "pages", "ahead"), 4096 / 2);
    cr_assert_eq(world_status(world, "pages", "ahead_unproven"), 0); // gone with the VM
    world_stop(world);
}

Test(neighbours, random_touches_take_a_fault_each)
{
    enum vmm_order order = VMM_RANDOM;
    world = world_make(MIXED, 16 << 20);
    world_serve(world, NULL);
    run(touch, &order);
    cr_assert_gt(world_status(world, "faults", "read"), 4096 * 9 / 10);
    world_stop(world);
}

Test(neighbours, can_be_switched_off)
{
    static const char *const off[] = {"--prefetch", "0", NULL};
    enum vmm_order order = VMM_UP;
    world = world_make(MIXED, 8 << 20);
    world_serve(world, off);
    run(touch, &order);
    cr_assert_geq(world_status(world, "faults", "read"), 2048);
    cr_assert_eq(world_status(world, "pages", "ahead"), 0);
    world_stop(world);
}

Test(neighbours, are_bounded)
{
    static const char *const none[] = {"--prefetch-vm", "0", NULL};
    enum vmm_order order = VMM_UP;
    world = world_make(MIXED, 8 << 20);
    world_serve(world, none);
    run(touch, &order);
    cr_assert_eq(world_status(world, "pages", "ahead"), 0);
    world_stop(world);
}

// Every third page is given back, some before the sweep comes by, some after: zeros both, and the
// sweep fills none of them.
static int sweep_among_removed(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    for (uint32_t page = 100; page < vmm.pages / 2; page += 37)
        vmm_remove(&vmm, page, 1);
    for (uint32_t page = 0; page < vmm.pages; page++) {
        if (page >= 100 && page < vmm.pages / 2 && (page - 100) % 37 == 0)
            vmm_check_zero(&vmm, page);
        else
            vmm_check(&vmm, page);
        if (page % 64 == 32 && page > vmm.pages / 2) { // in front of the sweep, and behind it
            uint32_t ahead = page + 3;
            vmm_remove(&vmm, ahead, 2);
            vmm_check_zero(&vmm, ahead + 1);
            vmm_check_zero(&vmm, ahead);
            vmm_remove(&vmm, page - 1, 1);
            vmm_check_zero(&vmm, page - 1);
            page = ahead + 1;
        }
    }
    return 0;
}

Test(neighbours, of_a_sweep_are_never_pages_that_were_removed)
{
    world = world_make(DISTINCT, 16 << 20);
    world_serve(world, NULL);
    run(sweep_among_removed, NULL);
    cr_assert_gt(world_status(world, "pages", "ahead"), 0);
    world_stop(world);
}
