// SPDX-License-Identifier: Apache-2.0
//
// What the real Firecracker does, beyond the handshake: pages that it touches before the load
// returns, balloons of its versions, virtio-mem, a socket that is not there.
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(firecracker, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

enum { BYTES = 32 << 20, HOTPLUG = 4 << 20, BALLOONED = 3000 };

static struct world *world;

static void begin(client_main *main, struct client *client, const char *const *extra)
{
    world_serve(world, extra);
    client_start(client, main, NULL);
}

static int drain(void)
{
    const char *args[] = {"drain", "--populate", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    return faultline_run(NULL, 0, args);
}

// --- the load ---

static int load(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_load(&vmm, world->socket);
    tell_test(channel, 'l');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

Test(firecracker, touches_pages_before_its_load_returns)
{
    struct client client;
    world = world_make(DISTINCT, 4 << 20);
    begin(load, &client, NULL);
    cr_assert(client_says(&client, 'l'));
    cr_assert_leq(world_status(world, "faults", "installed"), 2);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(firecracker, ends_when_the_socket_is_not_there)
{
    struct client client;
    world = world_make(DISTINCT, 1 << 20);
    world_serve(world, NULL);
    world->socket = temp_path(&world->temp, "sockets/other.sock");
    client_start(&client, load, NULL);
    cr_assert_eq(client_wait(&client), 1);
    cr_assert_eq(world_status(world, "", "vms"), 0);
    world_stop(world);
}

// --- a balloon that tells nobody ---

// Each other page of a part is other memory by now, of which the engine knows nothing and which it
// must leave alone: thousands of mappings, in the middle of what it fills.
static int ballooned_silently(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_7);
    vmm_load(&vmm, world->socket);
    for (uint32_t page = 0; page < 64; page++)
        vmm_check(&vmm, page);
    vmm_balloon_silently(&vmm, 1, BALLOONED);
    for (uint32_t i = 0; i < 32; i++)
        memset(vmm_page(&vmm, 1 + 2 * i), 9, PAGE);
    tell_test(channel, 'b');
    await_test(channel, 'g');
    for (uint32_t i = 0; i < 32; i++) {
        const uint8_t *bytes = vmm_page(&vmm, 1 + 2 * i);
        CHECK(bytes[0] == 9 && memcmp(bytes, bytes + 1, PAGE - 1) == 0, "page %u", 1 + 2 * i);
        memset(vmm_page(&vmm, 1 + 2 * i), 0, PAGE);
    }
    vmm_touch_all(&vmm, 2, VMM_UP, true);
    return 0;
}

static void ballooned(bool drained)
{
    struct client client;
    world = world_make(DISTINCT, BYTES);
    begin(ballooned_silently, &client, NULL);
    cr_assert(client_says(&client, 'b'));
    if (drained)
        cr_assert_eq(drain(), 0);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "pages", "removed"), 0);
    world_stop(world);
}

Test(firecracker, of_1_10_balloons_and_tells_nobody)
{
    ballooned(false);
}

Test(firecracker, of_1_10_is_filled_around_its_balloon)
{
    ballooned(true);
}

// --- virtio-mem ---

static int plugs(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map_memory(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_add_hotplug(&vmm, HOTPLUG);
    const struct vmm_region *hotplug = &vmm.region[vmm.regions - 1];
    CHECK(hotplug->base < vmm.region[0].base, "its region is not lower than the rest");
    vmm.uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm.uffd, 0);
    vmm_register(&vmm);
    vmm_load(&vmm, world->socket);
    vmm_plug(&vmm, true);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true); // what is plugged is a hole in the file: zeros
    memset(hotplug->base, 3, hotplug->bytes);
    vmm_plug(&vmm, false);
    tell_test(channel, 'u');
    await_test(channel, 'g');
    vmm_plug(&vmm, true);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

static void plugged(bool drained)
{
    struct client client;
    world = world_make(DISTINCT, 8 << 20);
    cr_assert_eq(truncate(world->file, (8 << 20) + HOTPLUG), 0);
    begin(plugs, &client, NULL);
    cr_assert(client_says(&client, 'u'));
    if (drained)
        cr_assert_eq(drain(), 0);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "pages", "removed"), HOTPLUG / PAGE);
    world_stop(world);
}

Test(firecracker, plugs_memory_and_unplugs_it)
{
    plugged(false);
}

Test(firecracker, is_filled_with_memory_unplugged)
{
    plugged(true);
}

// --- a balloon on pages of 2 MiB ---

static int balloons_huge_pages(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, HUGE, 1, VMM_MAIN);
    vmm_load(&vmm, world->socket);
    vmm_touch_all(&vmm, 1, VMM_UP, false);
    CHECK(!vmm_balloon(&vmm, vmm_page(&vmm, 1) + PAGE, HUGE), "a part of a page was taken");
    CHECK(!vmm_balloon(&vmm, vmm_page(&vmm, 1) + PAGE, PAGE), "a part of a page was taken");
    vmm_touch_all(&vmm, 1, VMM_UP, false); // all as it was
    CHECK(vmm_balloon(&vmm, vmm_page(&vmm, 2), HUGE), "a whole page was refused");
    vmm.removed[2] = true;
    vmm_touch_all(&vmm, 1, VMM_UP, false);
    return 0;
}

Test(firecracker, balloons_whole_huge_pages_only)
{
    struct client client;
    need_huge_pages(6);
    world = world_make(DISTINCT, 4 * HUGE);
    begin(balloons_huge_pages, &client, NULL);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "pages", "removed"), HUGE / PAGE);
    world_stop(world);
}
