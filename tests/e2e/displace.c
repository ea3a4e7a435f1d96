// SPDX-License-Identifier: Apache-2.0
//
// A process that lives on unmaps the memory of a VM and hands over new memory at the same addresses
// with another userfaultfd. The kernel fills by the address alone, so the VM before ends first.
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(displace, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

enum { BYTES = 64 << 20 };

static struct world *world;
static struct memory other_memory;
static char other_socket[2 * TEST_PATH];

static void begin(void)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    world_add_image(world, "other", BYTES, &other_memory, other_socket);
}

static void end(void)
{
    world_stop(world);
    memory_free(&other_memory);
}

// Memory of the image `other` where the first `regions` regions of another VM were.
static void map_in_place(struct vmm *vmm, const struct vmm *before, unsigned regions)
{
    vmm_map_memory(vmm, &other_memory, PAGE, before->regions, VMM_MAIN);
    for (unsigned i = 0; i < regions; i++) {
        uint8_t *base = before->region[i].base;
        munmap(base, before->region[i].bytes);
        CHECK(mremap(vmm->region[i].base, vmm->region[i].bytes, vmm->region[i].bytes,
                     MREMAP_MAYMOVE | MREMAP_FIXED, base) == base,
              "mremap");
        vmm->region[i].base = base;
    }
    vmm->uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm->uffd, 0);
    vmm_register(vmm);
}

static int replace_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm before;
    static struct vmm after;
    (void)shared;
    (void)arg;
    vmm_map(&before, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&before, world->socket);
    for (uint32_t page = 0; page < before.pages; page += 3)
        vmm_check(&before, page);
    map_in_place(&after, &before, 2);
    vmm_handshake(&after, other_socket); // its socket stays open, as does the one before
    for (uint32_t page = 0; page < after.pages; page += 2)
        vmm_check(&after, page);
    tell_test(channel, 'h');
    await_test(channel, 'c');
    for (uint32_t page = 0; page < after.pages; page++)
        vmm_check(&after, page);
    return 0;
}

// Both are filled to their ends by a drain: what would come of the VM before would be there.
Test(displace, new_memory_in_the_place_of_a_vms_gets_its_own_bytes)
{
    struct client client;
    begin();
    client_start(&client, replace_main, NULL);
    cr_assert(client_says(&client, 'h'));
    const char *drain[] = {"drain", "--populate", "--control",
                           temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(NULL, 0, drain), 0);
    client_tell(&client, 'c');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_logs(&world->server, "event=displaced vm=1 image=image", 1), 1);
    cr_assert(server_wait_log(&world->server, "event=detach vm=2 image=other", 1));
    end();
}

static int part_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm before;
    static struct vmm after;
    (void)shared;
    (void)arg;
    vmm_map(&before, &world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&before, world->socket);
    vmm_check(&before, 0);
    map_in_place(&after, &before, 1);
    vmm_handshake(&after, other_socket);
    tell_test(channel, 'h');
    await_test(channel, 'c');
    for (uint32_t page = before.pages / 2; page < before.pages; page++)
        vmm_check(&before, page);
    return 0;
}

// The VM before still has the rest of its memory: it is served, and who comes is told why it is
// not.
Test(displace, of_a_part_of_a_vm_is_refused)
{
    struct client client;
    begin();
    client_start(&client, part_main, NULL);
    cr_assert(client_says(&client, 'h'));
    cr_assert(server_wait_log(&world->server, "served with another userfaultfd", 1));
    client_tell(&client, 'c');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_count_log(&world->server, "event=displaced"), 0);
    end();
}
