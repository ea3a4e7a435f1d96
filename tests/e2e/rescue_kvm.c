// SPDX-License-Identifier: Apache-2.0
//
// The incident that `faultline rescue` is for, with a real guest (tests/support/guest.h): its
// handler is killed while its vCPUs wait for pages.
#include <criterion/criterion.h>
#include <stdio.h>

#include "engine/host/procfs.h"
#include "tests/support/guest.h"
#include "tests/support/orphan.h"

TestSuite(rescue_kvm, .init = orphan_begin, .fini = orphan_end, .timeout = 240);

// Of the guest, in KiB.
static uint64_t memory_kib(void)
{
    char path[64];
    char text[4096];
    uint64_t kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)orphan_client.pid);
    return fl_proc_read(path, text, sizeof(text)) > 0 && fl_proc_number(text, "RssAnon:", &kib)
               ? kib
               : 0;
}

static bool has_grown(void *arg)
{
    return memory_kib() >= *(const uint64_t *)arg;
}

Test(rescue_kvm, a_kvm_guest_whose_handler_was_killed)
{
    need_kvm();
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    guest_put_program(orphan_world->file);
    world_handler(orphan_world, NULL);
    struct guest_options options = {.memory = &orphan_world->memory,
                                    .socket = orphan_world->socket,
                                    .page_bytes = PAGE,
                                    .regions = 1};
    client_start(&orphan_client, guest_main, &options);
    cr_assert(server_wait_log(&orphan_world->server, "event=attach vm=", 1));
    uint64_t enough = memory_kib() + 1024; // to be compared
    cr_assert(wait_until(has_grown, &enough));
    server_kill(&orphan_world->server);
    cr_assert(client_waits(&orphan_client, GUEST_VCPUS));
    expect_doctor("its handler is gone");
    expect_doctor("faultline rescue --nothing-removed %d\n", (int)orphan_client.pid);
    world_serve(orphan_world, NULL);
    EXPECT_REFUSED("--nothing-removed", "--image", "image");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}
