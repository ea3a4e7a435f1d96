// SPDX-License-Identifier: Apache-2.0
//
// A program maps and closes images again and again. The server lets each of them go while the
// program lives on.
#include <criterion/criterion.h>
#include <faultline_client.h>
#include <string.h>

#include "tests/support/world.h"

enum { ROUNDS = 20, BYTES = 4 << 20 };

static struct world *world;

static bool descriptors_are(void *arg)
{
    return server_descriptors(&world->server) <= *(unsigned *)arg;
}

TestSuite(closing, .fini = world_close, .timeout = 120);

Test(closing, leaves_nothing_attached)
{
    need_userfaultfd();
    world = world_make(MIXED, BYTES);
    world_handler(world, NULL);
    unsigned before = server_descriptors(&world->server);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        struct fl_client *client = NULL;
        void *memory = NULL;
        cr_assert_eq(fl_client_map(world->socket, BYTES, FL_CLIENT_PAGE, &client, &memory), 0);
        volatile const char *byte = memory;
        (void)*byte;
        fl_client_close(client);
        cr_assert(server_wait_log(&world->server, "event=detach", round));
    }
    cr_assert(wait_until(descriptors_are, &before));
    world_stop(world);
}
