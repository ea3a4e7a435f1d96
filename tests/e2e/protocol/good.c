// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/protocol/good.h"

#include <criterion/criterion.h>
#include <sys/socket.h>

static int good_main(int channel, struct client_shared *shared, void *arg)
{
    const struct good *good = arg;
    struct vmm vmm;
    uint32_t page = 0;
    char order = 0;
    vmm_map(&vmm, good->memory, PAGE, 2, VMM_1_12);
    vmm_handshake(&vmm, good->socket);
    vmm_check(&vmm, vmm.pages - 1);
    tell_test(channel, 'r');
    while (recv(channel, &order, 1, 0) == 1 && order == 't') {
        vmm_check(&vmm, page);
        page = (page + 1) % vmm.pages;
        shared->progress++;
    }
    CHECK(order == 'e', "the test has gone");
    for (page = 0; page < vmm.pages; page++)
        vmm_check(&vmm, page);
    return 0;
}

void good_start(struct good *good, const char *socket, const struct memory *memory)
{
    *good = (struct good){.socket = socket, .memory = memory};
    client_start(&good->client, good_main, good);
    cr_assert(client_says(&good->client, 'r'), "the good client is not served");
}

bool good_touch(struct good *good, unsigned pages)
{
    uint64_t goal = good->client.shared->progress + pages;
    for (unsigned i = 0; i < pages; i++)
        client_tell(&good->client, 't');
    return client_progressed(&good->client, goal);
}

int good_end(struct good *good)
{
    client_tell(&good->client, 'e');
    return client_wait(&good->client);
}
