// SPDX-License-Identifier: Apache-2.0
//
// Messages of modes that the engine never registers but a client can: write protection and minor
// faults. The toucher goes on, and each message is counted.
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(modes, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

static struct world *world;

static void register_with(const struct vmm *vmm, uint64_t mode)
{
    struct uffdio_register request = {
        .range = {(uintptr_t)vmm->region[0].base, vmm->region[0].bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING | mode};
    CHECK(ioctl(vmm->uffd, UFFDIO_REGISTER, &request) == 0, "UFFDIO_REGISTER: %s", strerror(errno));
}

static int protected(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map_memory(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm.uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm.uffd, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
    register_with(&vmm, UFFDIO_REGISTER_MODE_WP);
    vmm_handshake(&vmm, world->socket);
    for (uint32_t page = 0; page < 3; page++) {
        struct uffdio_writeprotect protect = {.range = {(uintptr_t)vmm_page(&vmm, page), PAGE},
                                              .mode = UFFDIO_WRITEPROTECT_MODE_WP};
        vmm_check(&vmm, page);
        CHECK(ioctl(vmm.uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "%s", strerror(errno));
        memset(vmm_page(&vmm, page), 7, PAGE);
        CHECK(vmm_page(&vmm, page)[PAGE - 1] == 7, "page %u was not written", page);
    }
    return 0;
}

// Shared memory that lost its place in the page tables and not in the file.
static int minor(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map_shared(&vmm, &world->memory, PAGE, 1);
    close(vmm.uffd);
    vmm.uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm.uffd, UFFD_FEATURE_MINOR_SHMEM);
    register_with(&vmm, UFFDIO_REGISTER_MODE_MINOR);
    vmm_handshake(&vmm, world->socket);
    for (uint32_t page = 0; page < 2; page++) {
        vmm_check(&vmm, page);
        memset(vmm_page(&vmm, page), 7, PAGE);
        vmm_remove(&vmm, page, 1);
        CHECK(vmm_page(&vmm, page)[PAGE - 1] == 7, "page %u was not written", page);
    }
    return 0;
}

static void run(client_main *main)
{
    struct client client;
    world = world_make(DISTINCT, 1 << 20);
    world_serve(world, NULL);
    client_start(&client, main, NULL);
    cr_assert_eq(client_wait(&client), 0);
}

Test(modes, of_write_protection_are_counted)
{
    run(protected);
    cr_assert_eq(world_status(world, "faults", "write_protect"), 3);
    cr_assert_eq(world_status(world, "faults", "minor"), 0);
    world_stop(world);
}

Test(modes, of_minor_faults_are_counted)
{
    run(minor);
    cr_assert_eq(world_status(world, "faults", "minor"), 2);
    cr_assert_eq(world_status(world, "faults", "write_protect"), 0);
    cr_assert_eq(world_status(world, "pages", "dropped"), 0);
    world_stop(world);
}
