// SPDX-License-Identifier: Apache-2.0
//
// What VMs touch first is recorded, in order and within bounds, and becomes the image's trace.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/support/traces.h"

enum { BYTES = 8 << 20, PAGES = BYTES / PAGE };

TestSuite(record, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;
static struct trace trace;

static void begin(enum world_memory kind, uint64_t bytes)
{
    world = world_make(kind, bytes);
    world_serve(world, NULL);
}

static void end(struct client *client)
{
    client_tell(client, 'e');
    cr_assert_eq(client_wait(client), 0);
}

static void start(struct client *client, struct touches *touches)
{
    touches->world = world;
    client_start(client, touch_in_turn, touches);
    cr_assert(client_says(client, 't'));
}

static void finish(pid_t pid, int status, const char *says)
{
    char output[1024];
    int ended = record_wait(pid, world, output, sizeof(output));
    cr_assert_eq(ended, status, "%d: %s", ended, output);
    cr_assert_not_null(strstr(output, says), "%s", output);
}

static bool is_recorded(void *arg)
{
    return world_status(world, "recordings", "pages") >= *(const long long *)arg;
}

static void is(const uint32_t *page, uint32_t count, uint32_t runs)
{
    cr_assert(trace_read(world, &trace));
    cr_assert_eq(trace.runs, runs);
    cr_assert_eq(trace.count, count, "%u pages", trace.count);
    for (uint32_t i = 0; i < count; i++)
        cr_assert_eq(trace.page[i], page[i], "page %u of it", i);
}

Test(record, is_the_order_of_touch)
{
    uint32_t *order = random_order(PAGES, 3);
    begin(MIXED, BYTES); // zero pages, too
    record_one(world, (struct touches){NULL, PAGE, 2, order, PAGES / 3});
    is(order, PAGES / 3, 1);
    cr_assert(server_wait_log(&world->server, "event=recorded vm=1 image=image", 1));
    free(order);
    world_stop(world);
}

// What both have touched comes first.
Test(record, of_two_is_merged)
{
    static const uint32_t first[] = {900, 5, 700, 6};
    static const uint32_t second[] = {30, 900, 31, 6};
    static const char *const two[] = {"--runs", "2", NULL};
    struct client a;
    struct client b;
    struct touches of_a = {NULL, PAGE, 1, first, 4};
    struct touches of_b = {NULL, PAGE, 1, second, 4};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, two);
    start(&a, &of_a);
    start(&b, &of_b); // both at a time
    end(&b);
    end(&a);
    finish(pid, 0, "recorded 2 VMs");
    static const uint32_t merged[] = {900, 6, 30, 5, 31, 700};
    is(merged, 6, 2);
    for (uint32_t i = 0; i < 6; i++)
        cr_assert_eq(trace.seen[i], i < 2 ? 2 : 1);
    world_stop(world);
}

Test(record, again_adds_to_the_trace_or_replaces_it)
{
    static const uint32_t first[] = {40, 41};
    static const uint32_t second[] = {41, 7};
    static const uint32_t merged[] = {41, 40, 7};
    static const char *const replace[] = {"--replace", NULL};
    struct client client;
    struct touches touches = {NULL, PAGE, 1, second, 2};
    begin(DISTINCT, BYTES);
    record_one(world, (struct touches){NULL, PAGE, 1, first, 2});
    record_one(world, touches);
    is(merged, 3, 2);
    pid_t pid = record_start(world, replace);
    start(&client, &touches);
    end(&client);
    finish(pid, 0, "recorded 1 VM;");
    is(second, 2, 1);
    world_stop(world);
}

// The VM lives on.
Test(record, ends_with_its_window)
{
    static const uint32_t page[] = {11, 3, 12};
    static const char *const brief[] = {"--window", "1500ms", NULL};
    struct client client;
    struct touches touches = {NULL, PAGE, 1, page, 3};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, brief);
    start(&client, &touches);
    finish(pid, 0, "recorded 1 VM");
    is(page, 3, 1);
    end(&client);
    world_stop(world);
}

Test(record, ends_with_its_share)
{
    static const char *const share[] = {"--share", "10", NULL};
    uint32_t *order = random_order(PAGES, 5);
    struct client client;
    struct touches touches = {NULL, PAGE, 2, order, PAGES};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, share);
    start(&client, &touches);
    finish(pid, 0, "recorded 1 VM");
    is(order, PAGES / 10, 1);
    end(&client);
    free(order);
    world_stop(world);
}

static int touch_and_remove(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 20);
    vmm_remove(&vmm, 20, 10); // touched, and not touched
    vmm_check_zero(&vmm, 20);
    vmm_check_zero(&vmm, 21);
    vmm_check(&vmm, 30);
    tell_test(channel, 't');
    await_test(channel, 'e');
    return 0;
}

Test(record, knows_a_page_once_and_what_was_given_back_not_at_all)
{
    static const uint32_t page[] = {20, 30};
    struct client client;
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, NULL);
    client_start(&client, touch_and_remove, NULL);
    cr_assert(client_says(&client, 't'));
    end(&client);
    finish(pid, 0, "recorded 1 VM");
    is(page, 2, 1);
    world_stop(world);
}

// The last page of the file is in part beyond the image's end: 512 pages, then 100.
Test(record, of_huge_pages_has_all_that_is_in_them)
{
    static const uint32_t page[] = {2, 0};
    need_huge_pages(4);
    begin(DISTINCT, 2 * HUGE + 100 * PAGE);
    record_one(world, (struct touches){NULL, HUGE, 1, page, 2});
    cr_assert(trace_read(world, &trace));
    cr_assert_eq(trace.count, 612);
    for (uint32_t i = 0; i < 612; i++)
        cr_assert_eq(trace.page[i], i < 100 ? 1024 + i : i - 100);
    world_stop(world);
}

Test(record, of_a_vm_that_is_killed_counts)
{
    static const uint32_t page[] = {8, 9};
    static const char *const two[] = {"--runs", "2", NULL};
    struct client client;
    struct touches touches = {NULL, PAGE, 1, page, 2};
    struct touches nothing = {NULL, PAGE, 1, page, 0};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, two);
    start(&client, &touches);
    client_kill(&client);
    start(&client, &nothing); // whoever touched nothing does not
    end(&client);
    cr_assert(server_wait_log(&world->server, "event=recorded vm=2 image=image pages=0", 1));
    start(&client, &touches);
    end(&client);
    finish(pid, 0, "recorded 2 VMs");
    is(page, 2, 2);
    world_stop(world);
}

Test(record, is_interrupted_and_keeps_what_is_complete)
{
    static const uint32_t page[] = {8, 9};
    static const char *const two[] = {"--runs", "2", NULL};
    struct client client;
    struct touches touches = {NULL, PAGE, 1, page, 2};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, NULL);
    kill(pid, SIGINT);
    finish(pid, 1, "no VM of image image was recorded");
    pid = record_start(world, NULL); // the first order is gone
    kill(pid, SIGHUP);               // its terminal went away
    finish(pid, 1, "no VM of image image was recorded");
    cr_assert_not(trace_read(world, &trace));
    pid = record_start(world, two);
    start(&client, &touches);
    end(&client);
    cr_assert(server_wait_log(&world->server, "event=recorded vm=1", 1));
    start(&client, &touches); // whose VM does not end
    kill(pid, SIGINT);
    finish(pid, 1, "only 1 of 2 VMs were recorded");
    is(page, 2, 1);
    end(&client);
    cr_assert_eq(world_status(world, "recordings", "orders"), 0);
    world_stop(world);
}

Test(record, stops_waiting)
{
    static const char *const second[] = {"--timeout", "1", NULL};
    begin(DISTINCT, BYTES);
    finish(record_start(world, second), 1, "no VM of image image was recorded");
    cr_assert_eq(world_status(world, "recordings", "orders"), 0);
    world_stop(world);
}

static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

// One that was not fetched in time is ordered again, too.
static bool is_ordered_again(void *arg)
{
    (void)arg;
    return server_count_log(&world->server, "event=record image=image runs=1") == 1 ||
           server_count_log(&world->server, "event=record image=image runs=2") == 3;
}

// What was complete has been fetched; the rest is ordered of the successor.
Test(record, goes_on_with_another_engine)
{
    static const uint32_t page[] = {8, 9};
    static const char *const two[] = {"--runs", "2", NULL};
    struct client lost;
    struct client client;
    struct touches touches = {NULL, PAGE, 1, page, 2};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, two);
    start(&lost, &touches);
    kill_engine();
    cr_assert(server_wait_log(&world->server, "event=record image=image runs=2", 2));
    start(&client, &touches);
    end(&client);
    cr_assert(server_wait_log(&world->server, "event=recorded vm=2", 1));
    kill_engine();
    end(&lost); // it was served on, but is no recording
    cr_assert(wait_until(is_ordered_again, NULL));
    start(&client, &touches);
    end(&client);
    start(&client, &touches); // in case that the first had not been fetched yet
    end(&client);
    finish(pid, 0, "recorded 2 VMs");
    is(page, 2, 2);
    world_stop(world);
}

Test(record, is_refused_where_it_makes_no_sense)
{
    char output[1024];
    begin(DISTINCT, BYTES);
    const char *control = temp_path(&world->temp, "control.sock");
    const char *unknown[] = {"record",     "--control", control, "--store",
                             world->store, "nothing",   NULL};
    const char *again[] = {"record", "--control", control, "--store", world->store, "image", NULL};
    const char *cancel[] = {"record", "--control", control, "--cancel", "image", NULL};
    const char *window[] = {"record", "--window", "2h", "image", NULL};
    cr_expect_eq(faultline_run(output, sizeof(output), unknown), 1);
    cr_expect_not_null(strstr(output, "the store has no image 'nothing'"), "%s", output);
    cr_expect_eq(faultline_run(output, sizeof(output), window), 2);
    pid_t pid = record_start(world, NULL);
    cr_expect_eq(faultline_run(output, sizeof(output), again), 1);
    cr_expect_not_null(strstr(output, "another client has ordered"), "%s", output);
    kill(pid, SIGKILL); // its order is left behind
    waitpid(pid, NULL, 0);
    cr_expect_eq(faultline_run(output, sizeof(output), cancel), 0, "%s", output);
    cr_expect_eq(faultline_run(output, sizeof(output), cancel), 1);
    cr_expect_eq(world_status(world, "recordings", "orders"), 0);
    world_stop(world);
}

// The new image's VMs are recorded for it; what was recorded of the old one is not merged into it.
Test(record, of_an_image_that_was_replaced_is_not_kept)
{
    static const uint32_t page[] = {8, 9};
    char output[1024];
    struct client client;
    struct memory other;
    struct touches touches = {NULL, PAGE, 1, page, 2};
    begin(DISTINCT, BYTES);
    const char *file = temp_path(&world->temp, "other");
    memory_make_distinct(&other, file, BYTES, 99);
    pid_t pid = record_start(world, NULL);
    start(&client, &touches);
    const char *pack[] = {"pack",  "--store",   world->store, "--name",
                          "image", "--replace", file,         NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), pack), 0, "%s", output);
    end(&client);
    finish(pid, 1, "it was replaced");
    cr_assert_not(trace_read(world, &trace));
    memory_free(&other);
    world_stop(world);
}

Test(record, shows_how_far_it_is)
{
    static const uint32_t page[] = {8, 9, 10};
    long long pages = 3;
    struct client client;
    struct touches touches = {NULL, PAGE, 1, page, 3};
    begin(DISTINCT, BYTES);
    pid_t pid = record_start(world, NULL);
    start(&client, &touches);
    cr_assert(wait_until(is_recorded, &pages));
    cr_assert_eq(world_status(world, "recordings", "vms"), 1);
    end(&client);
    finish(pid, 0, "3 pages");
    world_stop(world);
}
