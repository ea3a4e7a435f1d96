// SPDX-License-Identifier: Apache-2.0
//
// Calls of the engine fail, for want of memory or because of the disk: every page is right in the
// end, or its toucher is told, and nobody waits.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/failing_world.h"

enum { BYTES = 12 << 20, SELDOM = 8, OFTEN = 3 };

TestSuite(shortage, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

static struct world *world;
static struct failing_calls *calls;
static char template_socket[2 * TEST_PATH];

static void fail_from_now_on(unsigned what, unsigned every)
{
    atomic_store(&calls->every, every);
    atomic_store(&calls->what, what);
}

static void fail_no_more(void)
{
    atomic_store(&calls->what, 0);
    cr_assert_gt(atomic_load(&calls->failed), 0, "nothing has failed");
}

static void serve(const char *const *extra)
{
    world = world_make(MIXED, BYTES);
    calls = world_failing_calls(world);
    world_serve_failing(world, extra);
    cr_assert(server_wait_log(&world->server, "event=engine_ready", 1)); // the standby, too
    snprintf(template_socket, sizeof(template_socket), "%s",
             temp_path(&world->temp, "sockets/image.template"));
}

// The order itself may find no memory.
static bool is_drained(void *arg)
{
    const char *args[] = {"drain", "--populate", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    (void)arg;
    return faultline_run(NULL, 0, args) == 0;
}

// --- what an engine counts in ---

Test(shortage, of_a_ledger_costs_the_totals_only)
{
    world = world_make(MIXED, BYTES);
    calls = world_failing_calls(world);
    fail_from_now_on(FAILING_LEDGERS, 1);
    world_serve_failing(world, NULL);
    fail_no_more();
    cr_assert(server_wait_log(&world->server, "event=degraded what=counters", 1));
    cr_assert_eq(world_status(world, "", "attached"), 0);
    world_stop(world);
}

// --- clients ---

struct how {
    uint32_t page_bytes;
    bool template;
};

// A third of its memory while calls fail, and all of it when the test says so.
static int toucher_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct how *how = arg;
    if (how->template) {
        vmm_map_template(&vmm, &world->memory, 2, template_socket, NULL);
        vmm_handshake_template(&vmm);
    } else {
        vmm_map(&vmm, &world->memory, how->page_bytes, 2, VMM_1_12);
        vmm_handshake(&vmm, world->socket);
    }
    vmm.shared = shared;
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 'h');
    for (uint32_t page = 0; page < vmm.pages / 3; page++)
        vmm_check(&vmm, page);
    tell_test(channel, 'h');
    await_test(channel, 'd');
    vmm_touch_all(&vmm, 2, VMM_UP, true);
    return 0;
}

static void touch(unsigned what, unsigned every, const struct how *how)
{
    static const char *const options[] = {"--cache", "8M", NULL};
    struct client client[3];
    serve(options);
    if (how->template) {
        const char *args[] = {"template", "--control", temp_path(&world->temp, "control.sock"),
                              "image", NULL};
        cr_assert_eq(faultline_run(NULL, 0, args), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        client_start(&client[i], toucher_main,
                     (void *)(uintptr_t)how); // NOLINT(performance-no-int-to-ptr)
        cr_assert(client_says(&client[i], 'a'));
    }
    cr_assert(server_wait_log(&world->server, "event=attach ", 3)); // else they may be refused
    fail_from_now_on(what, every);
    for (unsigned i = 0; i < 3; i++)
        client_tell(&client[i], 'h');
    for (unsigned i = 0; i < 3; i++)
        cr_assert(client_says(&client[i], 'h'));
    // What they miss comes while calls fail; nobody serves them afterwards.
    cr_assert(wait_until(is_drained, NULL));
    for (unsigned i = 0; i < 3; i++) {
        client_tell(&client[i], 'd');
        cr_assert_eq(client_wait(&client[i]), 0);
    }
    fail_no_more();
    world_stop(world);
}

static const struct how small = {PAGE, false};
static const struct how huge = {HUGE, false};
static const struct how shared = {PAGE, true};

Test(shortage, of_heap)
{
    touch(FAILING_HEAP, SELDOM, &small);
}
Test(shortage, of_heap_for_huge_pages)
{
    need_huge_pages(3 * BYTES / HUGE);
    touch(FAILING_HEAP, SELDOM, &huge);
}
Test(shortage, of_heap_for_a_template)
{
    touch(FAILING_HEAP, SELDOM, &shared);
}
Test(shortage, of_mappings)
{
    touch(FAILING_MAPPINGS, OFTEN, &small);
}
Test(shortage, of_mappings_for_huge_pages)
{
    need_huge_pages(3 * BYTES / HUGE);
    touch(FAILING_MAPPINGS, OFTEN, &huge);
}
Test(shortage, of_reads)
{
    touch(FAILING_READS, SELDOM, &small);
}
Test(shortage, of_submits)
{
    touch(FAILING_SUBMITS | FAILING_COMPLETES, SELDOM, &small);
}
Test(shortage, of_submits_for_huge_pages)
{
    need_huge_pages(3 * BYTES / HUGE);
    touch(FAILING_SUBMITS | FAILING_COMPLETES, OFTEN, &huge);
}
Test(shortage, of_fills)
{
    touch(FAILING_FILLS, SELDOM, &small);
}
Test(shortage, of_fills_for_huge_pages)
{
    need_huge_pages(3 * BYTES / HUGE);
    touch(FAILING_FILLS, OFTEN, &huge);
}
Test(shortage, of_fills_for_a_template)
{
    touch(FAILING_FILLS, SELDOM, &shared);
}
