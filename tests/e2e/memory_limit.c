// SPDX-License-Identifier: Apache-2.0
//
// A VM at the limit of its memory cgroup, with swap: it comes to a lane, the status says why, all
// of its bytes are right, and another VM of the same worker is served meanwhile.
#include <criterion/criterion.h>

#include "tests/support/cgroup.h"
#include "tests/support/swap.h"
#include "tests/support/world.h"

enum { BYTES = 64 << 20, LIMIT = 16 << 20, SWAP = 256 << 20 };

static struct world *world;
static void give_back(void)
{
    swap_off();
    cgroup_remove();
    world_close();
}

TestSuite(memory_limit, .init = need_userfaultfd, .fini = give_back, .timeout = 180);

static int limited_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    CHECK(cgroup_enter(), "it cannot enter its cgroup");
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    await_test(channel, 't');
    // Until the test has seen it: what was swapped out comes in again, and others go.
    for (unsigned i = 0; i < 3; i++) {
        vmm_touch_all(&vmm, 2, VMM_UP, true);
    }
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

static int other_main(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    world_touch_when_told(world, channel, shared, 1);
    return 0;
}

static bool limit_was_met(void *arg)
{
    (void)arg;
    return world_vm_status(world, 1, "memory_limit", "met") > 0;
}

Test(memory_limit, gives_its_vm_a_lane_and_slows_nobody_else_down)
{
    static const char *const options[] = {"--workers", "1", "--hang-timeout", "2000", NULL};
    struct client limited;
    struct client other;
    world = world_make(DISTINCT, BYTES);
    cgroup_make(LIMIT);
    need(swap_on(temp_path(&world->temp, "swap"), SWAP), "a file system that can have a swap file");
    world_serve(world, options);
    client_start(&limited, limited_main, NULL);
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    client_start(&other, other_main, NULL);
    cr_assert(client_says(&other, 'a'));
    client_tell(&limited, 't');
    client_tell(&other, 't');
    cr_expect(wait_until(limit_was_met, NULL));
    cr_expect(server_wait_log(&world->server, "event=lane vm=1", 1));
    cr_expect_eq(world_vm_status(world, 1, "memory_limit", "bytes"), LIMIT);
    cr_expect_eq(client_wait(&other), 0);
    cr_assert(client_says(&limited, 'd'));
    client_tell(&limited, 'e');
    cr_expect_eq(client_wait(&limited), 0);
    cr_expect_eq(server_count_log(&world->server, "event=engine_hangs"), 0);
    world_stop(world);
}
