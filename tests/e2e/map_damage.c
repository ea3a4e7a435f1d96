// SPDX-License-Identifier: Apache-2.0
//
// A piece of an image's map that is damaged: found when a page of it is first needed, by whichever
// engine, it fails these pages by the VM's policy, and no others.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "tests/support/world.h"

TestSuite(map_damage, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static_assert(FL_PIECE_ENTRIES == 8192, "what a VM without its pages is said to have lost");
enum {
    PIECE_BYTES = FL_PIECE_ENTRIES * PAGE,
    BYTES = 2 * PIECE_BYTES + (16 << 20),
    SIGKILL_STATUS = 128 + SIGKILL,
};

// No look at all of the map when a VM of huge pages is attached.
static const char *const options[] = {"--retries", "1", "--replay", "off", "--huge-page-admission",
                                      "off",       NULL};
static const char *const kill_options[] = {"--retries", "1", "--on-error", "kill", NULL};

static struct world *world;

// The piece in the middle.
static void flip_map(void)
{
    uint8_t byte;
    off_t at =
        (off_t)(sizeof(struct fl_disk_image_header) + FL_PIECE_ENTRIES * sizeof(uint64_t) + 12345);
    int fd = open(temp_path(&world->temp, "store/images/image.img"), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 2;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void begin(const char *const *extra)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, extra);
}

// Every `step`th page from `first` on. In the middle piece: SIGBUS, or right.
static void touch(struct vmm *vmm, uint32_t first, uint32_t step, bool bad)
{
    for (uint32_t page = first; page < vmm->pages; page += step) {
        uint64_t offset = vmm_page_offset(vmm, page);
        bool middle = offset >= PIECE_BYTES && offset < 2 * PIECE_BYTES;
        if (middle && bad)
            CHECK(vmm_poisoned(vmm_page(vmm, page)), "page %u has bytes", page);
        else
            vmm_check(vmm, page);
    }
}

struct guest {
    uint32_t page_bytes;
    uint32_t step;
};

static void attach(struct vmm *vmm, uint32_t page_bytes)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    vmm_map(vmm, &world->memory, page_bytes, 2, VMM_1_12);
    vmm_handshake(vmm, world->socket);
    vmm_catch_sigbus();
}

// Some pages while all is right, some others when a successor finds the damage.
static int touch_before_and_after(int channel, struct client_shared *shared, void *arg)
{
    const struct guest *guest = arg;
    struct vmm vmm;
    (void)shared;
    attach(&vmm, guest->page_bytes);
    touch(&vmm, 0, guest->step, false);
    tell_test(channel, 'b');
    await_test(channel, 'g');
    touch(&vmm, 1, guest->step, true);
    touch(&vmm, 0, guest->step, false);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

static void survive(struct guest guest)
{
    struct client client;
    begin(options);
    client_start(&client, touch_before_and_after, &guest);
    cr_assert(client_says(&client, 'b'));
    flip_map();
    world->server.deaths = 1;
    kill(server_engine(&world->server), SIGKILL);
    cr_assert(server_wait_log(&world->server, "event=adopt vm=", 1));
    client_tell(&client, 'g');
    cr_assert(client_says(&client, 'd'));
    cr_assert_gt(world_status(world, "faults", "poisoned"), 0);
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(map_damage, a_successor_finds_it)
{
    survive((struct guest){PAGE, 509});
}

Test(map_damage, a_successor_finds_it_in_huge_pages)
{
    need_huge_pages(BYTES / HUGE + 1);
    survive((struct guest){HUGE, 2});
}

static int touch_damaged(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    attach(&vmm, *(const uint32_t *)arg);
    touch(&vmm, 0, vmm.page_bytes == PAGE ? 311 : 1, true);
    return 0;
}

static void refuse_pages_only(uint32_t page_bytes)
{
    struct client client;
    begin(options);
    flip_map();
    client_start(&client, touch_damaged, &page_bytes);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_count_log(&world->server, "event=refuse"), 0);
    flip_map();
    // Nobody remembers it as bad.
    client_start(&client, touch_before_and_after, &(struct guest){page_bytes, 3});
    cr_assert(client_says(&client, 'b'));
    client_kill(&client);
    world_stop(world);
}

Test(map_damage, fails_its_pages_and_no_others)
{
    refuse_pages_only(PAGE);
}

Test(map_damage, fails_its_huge_pages_and_no_others)
{
    need_huge_pages(BYTES / HUGE + 1);
    refuse_pages_only(HUGE);
}

static int touch_all(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    struct vmm vmm;
    (void)shared;
    attach(&vmm, PAGE);
    touch(&vmm, 0, PIECE_BYTES / PAGE * 2, false);
    tell_test(channel, 'b');
    await_test(channel, 'g');
    touch(&vmm, 7, 101, false);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

Test(map_damage, kills_whoever_touches_it_if_that_is_the_policy)
{
    struct client neighbour;
    struct client client;
    uint32_t page_bytes = PAGE;
    begin(kill_options);
    client_start(&neighbour, touch_all, NULL);
    cr_assert(client_says(&neighbour, 'b'));
    flip_map();
    client_start(&client, touch_damaged, &page_bytes);
    cr_assert_eq(client_wait(&client), SIGKILL_STATUS);
    cr_assert(server_wait_log(&world->server, "event=kill vm=2", 1));
    flip_map();
    client_tell(&neighbour, 'g');
    cr_assert(client_says(&neighbour, 'd'));
    client_tell(&neighbour, 'e');
    cr_assert_eq(client_wait(&neighbour), 0);
    world_stop(world);
}

static int touch_when_let_go(int channel, struct client_shared *shared, void *arg)
{
    const struct guest *guest = arg;
    struct vmm vmm;
    (void)shared;
    attach(&vmm, guest->page_bytes);
    touch(&vmm, 0, vmm.pages, false);
    tell_test(channel, 'b');
    await_test(channel, 'g');
    touch(&vmm, 0, 1, true);
    return 0;
}

// Each page of the piece is poisoned, though it is read for all of them together.
static void let_go(struct guest guest)
{
    struct client client;
    const char *const args[] = {"drain", "--populate", "--control",
                                temp_path(&world->temp, "control.sock"), NULL};
    client_start(&client, touch_when_let_go, &guest);
    cr_assert(client_says(&client, 'b'));
    flip_map();
    faultline_run(NULL, 0, args);
    cr_assert(server_wait_log(&world->server, " poisoned=8192 ", 1));
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_stop(&world->server), 3, "it has not said that pages were lost");
}

Test(map_damage, a_vm_is_let_go_without_its_pages)
{
    begin(options);
    let_go((struct guest){PAGE, 1});
}

Test(map_damage, a_vm_is_let_go_without_its_huge_pages)
{
    need_huge_pages(BYTES / HUGE + 1);
    begin(options);
    let_go((struct guest){HUGE, 1});
}
