// SPDX-License-Identifier: Apache-2.0
//
// A real KVM guest (tests/support/guest.h), served in every way.
#include <criterion/criterion.h>

#include "tests/support/guest.h"
#include "tests/support/world.h"

static void need_guest(void)
{
    need_userfaultfd();
    need_kvm();
}

TestSuite(kvm, .init = need_guest, .fini = world_close, .timeout = 240);

static struct world *world;

static void run(uint32_t page_bytes, bool handler)
{
    struct client client;
    world = world_make(MIXED, 16 << 20);
    guest_put_program(world->file);
    if (handler)
        world_handler(world, NULL);
    else
        world_serve(world, NULL);
    struct guest_options options = {
        .memory = &world->memory, .socket = world->socket, .page_bytes = page_bytes, .regions = 2};
    client_start(&client, guest_main, &options);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
    world_stop(world);
}

Test(kvm, the_sum_is_right)
{
    run(PAGE, false);
}

Test(kvm, the_sum_is_right_with_the_raw_file)
{
    run(PAGE, true);
}

Test(kvm, the_sum_is_right_on_huge_pages)
{
    need_huge_pages(8);
    run(HUGE, false);
}
