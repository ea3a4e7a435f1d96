// SPDX-License-Identifier: Apache-2.0
//
// Captures that end early: whatever it is that ends them, the VM goes on with the right bytes, and
// no page of it stays write-protected.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/capture_world.h"
#include "tests/support/points.h"

TestSuite(capture_ends, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

Test(capture_ends, with_its_client)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    for (int moment = BEGUN; moment < MOMENTS; moment++) {
        int failed = moment + 1;
        capture_until(&capture, &captured.guest[0], (enum moment)moment);
        capture_close(&capture);
        cr_assert(wait_until(captures_failed, &failed), "%d", moment);
        cr_assert(wait_until(no_capture_runs, NULL), "%d", moment);
        guest_is_free(&captured.guest[0]);
    }
    cr_assert_eq(server_logs(&captured.world->server,
                             "event=capture_failed vm=1 image=image blame=client", MOMENTS),
                 MOMENTS);
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 0);
    capture_works(&captured.guest[0], 1);
    captured_end();
}

// The client hears that nobody is there any more, and the successor undoes it.
Test(capture_ends, with_its_engine)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    for (int moment = BEGUN; moment < MOMENTS; moment++) {
        capture_until(&capture, &captured.guest[0], (enum moment)moment);
        kill_captured_engine();
        cr_assert_not(capture_await(&capture, FL_CAPTURE_KEPT));
        cr_assert_eq(capture.error, -EPIPE, "%d: %s", moment, capture.text);
        capture_close(&capture);
        guest_is_free(&captured.guest[0]);
    }
    capture_works(&captured.guest[0], 1);
    captured_end();
}

Test(capture_ends, goes_on_without_a_keeper)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    begin_capture(&capture, 1, 0);
    cr_assert(capture_await(&capture, FL_CAPTURE_READY), "%s", capture.text);
    server_kill_keeper(&captured.world->server);
    cr_assert(server_wait_log(&captured.world->server, "event=keeper_lost", 1));
    freeze_capture(&capture, &captured.guest[0]);
    cr_assert(capture_take_all(&capture, captured.image), "%s", capture.text);
    expect_same("without a keeper");
    publish(&capture, "image-2");
    capture_works(&captured.guest[0], 1); // as does one that begins then
    captured_end_of_vm();
}

Test(capture_ends, with_an_upgrade)
{
    char output[1024];
    struct capture_client capture;
    const char *args[] = {"upgrade", "--control", NULL, NULL};
    captured_begin((const char *[]){"--upgrade-trial", "100", NULL}, 50);
    args[2] = captured.control;
    for (int moment = READY; moment <= FROZEN; moment += FROZEN - READY) {
        capture_until(&capture, &captured.guest[0], (enum moment)moment);
        cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
        if (moment == FROZEN)
            cr_assert_not(capture_take_all(&capture, captured.image) &&
                          capture_await(&capture, FL_CAPTURE_KEPT));
        else
            cr_assert_not(capture_await(&capture, FL_CAPTURE_FROZEN));
        cr_assert_eq(capture.error, -ESHUTDOWN, "%s", capture.text);
        cr_assert_str_eq(capture.text, "the engine is being replaced");
        capture_close(&capture);
        guest_is_free(&captured.guest[0]);
    }
    capture_works(&captured.guest[0], 1);
    cr_assert_eq(world_status(captured.world, "captures", "failed"),
                 2); // goes on with the next engine
    captured_end();
}

Test(capture_ends, with_its_vm)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    for (int moment = BEGUN; moment < MOMENTS; moment++) {
        begin_capture(&capture, (uint64_t)moment + 1, FL_CAPTURE_KEEP_ARMED);
        if (moment >= READY)
            cr_assert(capture_await(&capture, FL_CAPTURE_READY), "%s", capture.text);
        if (moment >= ORDERED) {
            cr_assert(writers_pause(captured.guest[0].writers));
            cr_assert(capture_freeze(&capture));
        }
        if (moment >= FROZEN)
            cr_assert(capture_await(&capture, FL_CAPTURE_FROZEN), "%s", capture.text);
        if (moment >= COPIED)
            cr_assert(capture_await(&capture, FL_CAPTURE_COPIED), "%s", capture.text);
        client_kill(&captured.guest[0].client);
        cr_assert_not(capture_await(&capture, FL_CAPTURE_KEPT));
        cr_assert_eq(capture.phase, FL_CAPTURE_FAILED, "%d: %s", capture.error, capture.text);
        capture_close(&capture);
        cr_assert(wait_until(no_vm_is_left, NULL));
        cr_assert(no_capture_runs(NULL));
        writers_free(captured.guest[0].writers);
        guest_start(&captured.guest[0], 50);
    }
    captured_end();
}

// --- an engine that dies at a point ---

static void live_through(const char *point, bool publishes)
{
    struct capture_client capture;
    need_points();
    captured_make();
    point_begin(captured.world, point);
    captured_serve(NULL, 50);
    point_end();
    unsigned ready = server_count_log(&captured.world->server, "event=ready pid=");
    captured.world->server.deaths++;
    point_arm(captured.world);
    connect_capture(&capture);
    bool lives = capture_begin(&capture, 1, FL_CAPTURE_KEEP_ARMED) == 0 &&
                 capture_await(&capture, FL_CAPTURE_READY) &&
                 writers_pause(captured.guest[0].writers) && capture_freeze(&capture) &&
                 capture_await(&capture, FL_CAPTURE_FROZEN);
    writers_resume(captured.guest[0].writers);
    if (lives && capture_take_all(&capture, captured.image) && publishes &&
        capture_commit(&capture, published_as("image-2")))
        capture_await(&capture, FL_CAPTURE_KEPT);
    capture_close(&capture);
    cr_assert(wait_until(point_struck, captured.world), "no engine came to %s", point);
    cr_assert(server_wait_log(&captured.world->server, "event=ready pid=", ready + 1));
    guest_is_free(&captured.guest[0]);
    capture_works(&captured.guest[0], 1);
    captured_end();
}

Test(capture_ends, when_it_is_ordered)
{
    live_through("capture_beginning", true);
}

Test(capture_ends, when_the_freeze_is_ordered)
{
    live_through("capture_freezing", true);
}

Test(capture_ends, when_it_is_published)
{
    live_through("capture_committing", true);
}

Test(capture_ends, when_it_is_to_be_undone)
{
    live_through("capture_cancelling", false);
}

Test(capture_ends, when_its_task_begins)
{
    live_through("capture_begun", true);
}

Test(capture_ends, when_nothing_is_protected_yet)
{
    live_through("capture_prepared", true);
}

Test(capture_ends, when_some_is_protected)
{
    live_through("capture_armed", true);
}

Test(capture_ends, when_it_is_frozen)
{
    live_through("capture_frozen", true);
}

Test(capture_ends, when_some_is_copied)
{
    live_through("capture_copied", true);
}

Test(capture_ends, when_all_is_copied)
{
    live_through("capture_all_copied", true);
}

Test(capture_ends, when_it_ends)
{
    live_through("capture_ending", false);
}

Test(capture_ends, when_nothing_is_protected_any_more)
{
    live_through("unprotected", false);
}
