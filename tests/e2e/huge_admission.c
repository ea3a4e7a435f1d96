// SPDX-License-Identifier: Apache-2.0
//
// VMs that the pool of 2 MiB pages cannot hold: said, or refused, as --huge-page-admission says.
#include <criterion/criterion.h>
#include <faultline_client.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/huge_hold.h"
#include "tests/support/world.h"

// Of the image's PAGES pages of 2 MiB the last are zero.
enum { PAGES = 8, ZERO = 3, BYTES = PAGES * HUGE, NEEDED = PAGES - ZERO };

static struct world *world;
static struct client client[2];

static void begin(void)
{
    need_userfaultfd();
    need_huge_pages(2 * NEEDED);
}

static void end(void)
{
    client_kill(&client[0]);
    client_kill(&client[1]);
    huge_pages_give_back();
    world_close();
}

TestSuite(huge_admission, .init = begin, .fini = end, .timeout = 120);

static void serve(unsigned free_pages, const char *how)
{
    const char *options[] = {"--huge-page-admission", how, "--on-error", "poison", NULL};
    world = world_make(DISTINCT, BYTES);
    FILE *file = fopen(world->file, "r+e");
    static const char zeros[PAGE];
    cr_assert(file && fseek(file, (long)NEEDED * HUGE, SEEK_SET) == 0);
    for (unsigned i = 0; i < ZERO * (HUGE / PAGE); i++)
        cr_assert_eq(fwrite(zeros, sizeof(zeros), 1, file), 1);
    fclose(file);
    huge_pages_leave(free_pages);
    world_serve(world, options);
}

// Touches its first page, which is poisoned if it was refused, and waits.
static int toucher_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, HUGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_catch_sigbus();
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, vmm_poisoned(vmm_page(&vmm, 0)) ? 'p' : 't');
    await_test(channel, 'q');
    return 0;
}

static void end_client(struct client *which)
{
    client_tell(which, 'q');
    cr_assert_eq(client_wait(which), 0);
}

static bool is_counted(void *arg)
{
    return world_status(world, "huge_pages", "promised") == *(long long *)arg;
}

// What the first one still needs is not there for the second one.
Test(huge_admission, is_said_by_default)
{
    long long promised = NEEDED - 1;
    serve(NEEDED, "warn");
    client_start(&client[0], toucher_main, NULL);
    cr_assert(client_says(&client[0], 't'));
    cr_assert(wait_until(is_counted, &promised));
    cr_expect_eq(server_count_log(&world->server, "event=huge_pages_short"), 0);
    client_start(&client[1], toucher_main, NULL);
    cr_assert(client_says(&client[1], 't'));
    cr_assert(server_wait_log(&world->server, "event=huge_pages_short vm=2", 1));
    end_client(&client[0]);
    end_client(&client[1]);
    world_stop(world);
}

Test(huge_admission, refuses_a_vm_if_it_is_to)
{
    serve(NEEDED + 1, "refuse");
    client_start(&client[0], toucher_main, NULL);
    cr_assert(client_says(&client[0], 't'));
    cr_expect_eq(world_status(world, "huge_pages", "promised"), NEEDED - 1);
    client_start(&client[1], toucher_main, NULL);
    cr_assert(client_says(&client[1], 'p'));
    cr_expect_eq(world_status(world, "", "refused"), 1);
    cr_expect_eq(server_logs(&world->server,
                             "reason=\"the pool of 2 MiB pages cannot hold what it will "
                             "need: 5, but 5 of ",
                             1),
                 1);
    end_client(&client[1]);
    end_client(&client[0]);
    world_stop(world);
}

Test(huge_admission, can_be_turned_off)
{
    serve(1, "off");
    client_start(&client[0], toucher_main, NULL);
    cr_assert(client_says(&client[0], 't'));
    cr_expect_eq(world_status(world, "huge_pages", "promised"), 0);
    cr_expect_eq(server_count_log(&world->server, "event=huge_pages_short"), 0);
    end_client(&client[0]);
    world_stop(world);
}

// --- the client library ---

// Maps as many pages as the image has, of those of the pool if it has them. Says of which it got,
// and touches them when it is told.
static int library_main(int channel, struct client_shared *shared, void *arg)
{
    struct fl_client *mapped = NULL;
    void *address = NULL;
    (void)shared;
    (void)arg;
    int error = fl_client_map(world->socket, BYTES, FL_CLIENT_HUGE_IF_ROOM, &mapped, &address);
    CHECK(error == 0, "fl_client_map: %s", strerror(-error));
    tell_test(channel, fl_client_page_bytes(mapped) == FL_CLIENT_HUGE_PAGE ? 'h' : 's');
    await_test(channel, 't');
    for (uint32_t page = 0; page < BYTES / PAGE; page++) {
        const uint8_t *bytes = (const uint8_t *)address + (size_t)page * PAGE;
        bool zero = page >= NEEDED * (HUGE / PAGE);
        CHECK(zero ? all_zero(bytes, PAGE)
                   : memory_same(&world->memory, (uint64_t)page * PAGE, bytes, PAGE),
              "page %u has wrong bytes", page);
    }
    tell_test(channel, 'd');
    fl_client_close(mapped);
    return 0;
}

// Says that the pool has set its pages aside, which is not true.
static int liar_main(int channel, struct client_shared *shared, void *arg)
{
    static const char key[] = ",\"reserved\":true}]";
    char text[VMM_TEXT];
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, HUGE, 1, VMM_1_12);
    vmm_catch_sigbus();
    size_t length = vmm_handshake_text(&vmm, text) - 2;
    CHECK(length + sizeof(key) <= sizeof(text), "the handshake is too long");
    memcpy(text + length, key, sizeof(key));
    vmm.socket = vmm_connect(world->socket);
    vmm_send(vmm.socket, text, length + sizeof(key) - 1, &vmm.uffd, 1);
    tell_test(channel, vmm_poisoned(vmm_page(&vmm, 0)) ? 'p' : 't');
    await_test(channel, 'q');
    return 0;
}

Test(huge_admission, believes_no_client_that_has_nothing_set_aside)
{
    serve(NEEDED - 1, "refuse");
    client_start(&client[0], liar_main, NULL);
    cr_assert(client_says(&client[0], 'p'), "%s", client_failure());
    cr_expect_eq(world_status(world, "", "refused"), 1);
    end_client(&client[0]);
    world_stop(world);
}

// The pool has set the pages of the first one aside, so no other can take them, and none are left
// for the second one: it has pages of 4 KiB. Both have all their bytes, and nobody waits.
Test(huge_admission, never_lacks_what_a_client_had_set_aside)
{
    serve(PAGES, "refuse");
    client_start(&client[0], library_main, NULL);
    cr_assert(client_says(&client[0], 'h'), "%s", client_failure());
    client_start(&client[1], library_main, NULL);
    cr_assert(client_says(&client[1], 's'), "%s", client_failure());
    client_tell(&client[1], 't');
    cr_assert(client_says(&client[1], 'd'), "%s", client_failure());
    client_tell(&client[0], 't');
    cr_assert(client_says(&client[0], 'd'), "%s", client_failure());
    cr_expect_eq(client_wait(&client[0]), 0, "%s", client_failure());
    cr_expect_eq(client_wait(&client[1]), 0, "%s", client_failure());
    cr_expect_eq(world_status(world, "", "refused"), 0);
    cr_expect_eq(server_count_log(&world->server, "event=shortage"), 0);
    cr_expect_eq(server_count_log(&world->server, "event=huge_pages_short"), 0);
    world_stop(world);
}
