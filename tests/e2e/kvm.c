// SPDX-License-Identifier: Apache-2.0
//
// A real KVM guest (tests/support/guest.h), served in every way.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

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

// --- a page that cannot be had ---

enum { KILLED = 128 + SIGKILL, TOLD = 128 + SIGBUS };

// Some frames in the middle of the pack, of pages that the guest adds up.
static void damage(void)
{
    static const uint8_t noise[64 << 10] = {0xa5, 0x5a};
    glob_t found;
    struct stat status;
    cr_assert_eq(glob(temp_path(&world->temp, "store/packs/*.pack"), 0, NULL, &found), 0);
    int fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &status) == 0);
    cr_assert_eq(pwrite(fd, noise, sizeof(noise), status.st_size / 2), sizeof(noise));
    close(fd);
    globfree(&found);
}

static int run_damaged(const char *policy)
{
    const char *options[] = {"--retries", "0", policy ? "--on-error" : NULL, policy, NULL};
    struct client client;
    world = world_make(DISTINCT, 8 << 20);
    guest_put_program(world->file);
    world_serve(world, options);
    damage();
    struct guest_options guest = {
        .memory = &world->memory, .socket = world->socket, .page_bytes = PAGE, .regions = 2};
    client_start(&client, guest_main, &guest);
    int status = client_wait(&client);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    world_stop(world);
    return status;
}

Test(kvm, a_guest_whose_page_cannot_be_had_is_killed)
{
    cr_assert_eq(run_damaged(NULL), KILLED);
    cr_assert_eq(server_logs(&world->server, "event=kill vm=1", 1), 1);
    cr_assert_eq(server_count_log(&world->server, "event=poison"), 0);
}

// Why: the processor's own access ends in SIGBUS of the VMM, but one that the kernel makes for the
// guest is an exit for I/O at an address that no device has. (A VMM that answers it with zeros, as
// they do, lets the guest go on.)
Test(kvm, poison_does_not_stop_accesses_that_the_kernel_makes)
{
    int status = run_damaged("poison");
    cr_assert(status == TOLD || status == GUEST_SAW_MMIO, "it ended with %d", status);
    cr_assert_geq(server_logs(&world->server, "event=poison", 1), 1);
}
