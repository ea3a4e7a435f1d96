// SPDX-License-Identifier: Apache-2.0
//
// Captures over CONTROL.keeper, of a VM that writes, reads and gives back all the time: the image
// is what the memory was while the VM was paused. And orders of the control API.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/e2e/protocol/http.h"
#include "tests/support/capture_world.h"
#include "tests/support/points.h"

TestSuite(capture, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

Test(capture, is_what_the_memory_was)
{
    captured_begin(NULL, 50);
    for (unsigned i = 0; i < 3; i++)
        capture_works(&captured.guest[0], 1);
    cr_assert_eq(world_status(captured.world, "captures", "completed"), 3);
    cr_assert_eq(world_status(captured.world, "captures", "failed"), 0);
    cr_assert_gt(world_status(captured.world, "captures", "by_sweep"), 0);
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 0);
    cr_assert_eq(server_logs(&captured.world->server, "event=capture_begun vm=1 image=image", 3),
                 3);
    cr_assert_eq(
        server_logs(&captured.world->server, "event=captured vm=1 image=image as=image-2", 3), 3);
    captured_end();
}

static bool some_is_copied_for_a_write(void *board)
{
    return atomic_load(&((const struct fl_capture_board *)board)->by_fault) > 0;
}

// The copying in turn is held back meanwhile: it could be done before the VM writes.
Test(capture, copies_first_what_is_written_to)
{
    struct capture_client capture;
    need_points();
    captured_make();
    point_hold(captured.world, "capture_sweep");
    captured_serve(NULL, 0);
    begin_capture(&capture, 1, 0);
    freeze_capture(&capture, &captured.guest[0]);
    cr_assert(wait_until(some_is_copied_for_a_write, capture.board));
    cr_assert_eq(atomic_load(&capture.board->by_sweep), 0);
    point_let_go(captured.world);
    cr_assert(capture_take_all(&capture, captured.image), "%d: %s", capture.error, capture.text);
    expect_same("copied for writes, and then in turn");
    publish(&capture, "image-2");
    cr_assert_gt(world_status(captured.world, "captures", "by_fault"), 0);
    cr_assert_gt(world_status(captured.world, "captures", "by_sweep"), 0);
    captured_end();
}

static int cancel_capture(unsigned vm)
{
    static struct http_answer answer;
    char body[64];
    snprintf(body, sizeof(body), "{\"vm\":%u}", vm);
    return http_ask(captured.control, &answer, "DELETE", "/v1/captures", body);
}

// The second has what was written since the first, and says that it is the first one's child.
Test(capture, that_is_kept_makes_the_next_one_small)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    capture_all(&capture, &captured.guest[0], 1, FL_CAPTURE_KEEP_ARMED);
    cr_assert(capture.granted & FL_CAPTURE_KEEP_ARMED);
    publish(&capture, "first");
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 1);
    cr_assert(writers_go_on(captured.guest[0].writers, OPERATIONS));
    uint8_t *first = captured.image; // the parent of the second
    captured.image = malloc(CAPTURED_BYTES);
    connect_capture(&capture);
    cr_assert_eq(capture_begin(&capture, 1, FL_CAPTURE_KEEP_ARMED), 0, "%s", capture.text);
    cr_assert_str_eq(capture.text, published_as("first"));
    memcpy(captured.image, first, CAPTURED_BYTES);
    freeze_capture(&capture, &captured.guest[0]);
    cr_assert(capture_take_all(&capture, captured.image), "%s", capture.text);
    expect_same("the second");
    publish(&capture, "second");
    free(first);
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 1);
    cr_assert_eq(cancel_capture(1), 200);
    captured_end();
}

// As Firecracker before 1.12 without a balloon.
Test(capture, of_a_vm_that_has_no_events_is_what_the_memory_was)
{
    struct capture_client capture;
    captured_begin_silent(0);
    for (unsigned i = 0; i < 2; i++)
        capture_works(&captured.guest[0], 1);
    capture_all(&capture, &captured.guest[0], 1, FL_CAPTURE_KEEP_ARMED);
    cr_assert_not(capture.granted & FL_CAPTURE_KEEP_ARMED);
    publish(&capture, "single");
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 0);
    captured_end();
}

// What such a VM has dropped may have been there at the freeze, for all that is known: the capture
// is not torn, it fails.
Test(capture, fails_when_memory_was_dropped_without_an_event)
{
    struct capture_client capture;
    captured_begin_silent(2);
    begin_capture(&capture, 1, 0);
    cr_assert(capture_await(&capture, FL_CAPTURE_READY), "%s", capture.text);
    pause_guest(&captured.guest[0]);
    cr_assert(capture_freeze(&capture));
    cr_assert_not(capture_take_all(&capture, captured.image));
    cr_assert_str_eq(capture.text, "memory was dropped without an event");
    capture_close(&capture);
    captured_end();
}

// Others of other VMs go on beside it.
Test(capture, of_one_vm_runs_once)
{
    struct capture_client first;
    struct capture_client second;
    struct capture_client other;
    captured_begin(NULL, 50);
    guest_start(&captured.guest[1], 0);
    begin_capture(&first, 1, 0);
    connect_capture(&second);
    cr_assert_eq(capture_begin(&second, 1, 0), -EBUSY);
    cr_assert_not_null(strstr(second.text, "a capture of VM 1 runs already"), "%s", second.text);
    capture_close(&second);
    capture_all(&other, &captured.guest[1], 2, 0);
    publish(&other, "other");
    memcpy(captured.image, captured.world->memory.data, CAPTURED_BYTES);
    freeze_capture(&first, &captured.guest[0]);
    cr_assert(capture_take_all(&first, captured.image), "%s", first.text);
    expect_same("the first");
    publish(&first, "first");
    guest_end(&captured.guest[1]);
    captured_end();
}

// --- orders of operators ---

static bool status_says(const char *text)
{
    static char output[1 << 16];
    const char *args[] = {"status", "--control", captured.control, NULL};
    faultline_run(output, sizeof(output), args);
    return strstr(output, text) != NULL;
}

static bool shows(const char *text)
{
    static struct http_answer answer;
    cr_assert_eq(http_ask(captured.control, &answer, "GET", "/v1/captures", ""), 200);
    return strstr(answer.body, text) != NULL;
}

Test(capture, is_cancelled_by_the_control_api)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    cr_assert(shows("{\"captures\":[]}"));
    capture_until(&capture, &captured.guest[0], READY);
    cr_assert(shows("\"phase\":\"ready\""));
    cr_assert_eq(cancel_capture(1), 200);
    cr_assert_not(capture_await(&capture, FL_CAPTURE_FROZEN));
    cr_assert_eq(capture.error, -ECANCELED, "%s", capture.text);
    cr_assert_str_eq(capture.text, "it was cancelled by the control API");
    capture_close(&capture);
    guest_is_free(&captured.guest[0]);
    cr_assert_eq(cancel_capture(1), 200); // there is nothing to end
    cr_assert_eq(cancel_capture(99), 404);
    captured_end();
}

// What is kept for the next one is not the client's any more.
Test(capture, that_is_kept_is_undone_by_the_control_api)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    capture_all(&capture, &captured.guest[0], 1, FL_CAPTURE_KEEP_ARMED);
    publish(&capture, "first");
    cr_assert(shows("\"phase\":\"kept\""));
    cr_assert(status_says("0 checkpoints being taken, 1 VM tracked for the next one"));
    cr_assert_gt(guest_protected(&captured.guest[0]), 0);
    cr_assert_eq(cancel_capture(1), 200);
    guest_is_free(&captured.guest[0]);
    cr_assert(shows("{\"captures\":[]}"));
    capture_works(&captured.guest[0], 1);
    captured_end();
}

Test(capture, ends_when_the_server_lets_its_vms_go)
{
    struct capture_client capture;
    const char *drain[] = {"drain", "--populate", "--control", NULL, NULL};
    captured_begin(NULL, 0);
    drain[3] = captured.control;
    capture_until(&capture, &captured.guest[0], READY);
    cr_assert_eq(faultline_run(NULL, 0, drain), 0);
    cr_assert_not(capture_await(&capture, FL_CAPTURE_FROZEN));
    cr_assert_eq(capture.phase, FL_CAPTURE_FAILED, "%d: %s", capture.error, capture.text);
    capture_close(&capture);
    cr_assert(wait_until(no_vm_is_left, NULL));
    captured_end();
}

Test(capture, that_is_kept_goes_with_its_vm)
{
    struct capture_client capture;
    captured_begin(NULL, 50);
    capture_all(&capture, &captured.guest[0], 1, FL_CAPTURE_KEEP_ARMED);
    publish(&capture, "first");
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 1);
    client_kill(&captured.guest[0].client);
    cr_assert(wait_until(no_vm_is_left, NULL));
    cr_assert_eq(world_status(captured.world, "captures", "kept"), 0);
    writers_free(captured.guest[0].writers);
    guest_start(&captured.guest[0], 50);
    captured_end();
}

// --- the doctor ---

static char said[1 << 16];

static bool doctor_speaks_of_it(void *arg)
{
    (void)arg;
    const char *args[] = {"doctor", NULL};
    faultline_run(said, sizeof(said), args);
    return strstr(said, "), VM 1: ") != NULL;
}

static bool doctor_says_nothing(void *arg)
{
    return !doctor_speaks_of_it(arg);
}

static void do_as_printed(void)
{
    char command[4 * TEST_PATH];
    const char *at = strstr(strstr(said, "), VM 1: "), "to mend ");
    cr_assert_not_null(at, "%s", said);
    at += strlen("to mend ");
    snprintf(command, sizeof(command), "FAULTLINE_CONTROL='%s'; %.*s", captured.control,
             (int)strcspn(at, "\n"), at);
    cr_assert_eq(system(command), 0, "%s", command);
}

// He does not speak of what a capture protects, and speaks of what none does.
Test(capture, that_is_not_there_and_its_protection_is_is_seen_by_the_doctor)
{
    enum { LEFT = 64 };
    struct capture_client capture;
    captured_begin(NULL, 0);
    capture_all(&capture, &captured.guest[0], 1, FL_CAPTURE_KEEP_ARMED);
    publish(&capture, "first");
    cr_assert_gt(guest_protected(&captured.guest[0]), LEFT);
    cr_assert_not(doctor_speaks_of_it(NULL), "%s", said);
    cr_assert_eq(cancel_capture(1), 200);
    guest_is_free(&captured.guest[0]);
    cr_assert_not(doctor_speaks_of_it(NULL), "%s", said);
    cr_assert(writers_pause(captured.guest[0].writers));
    guest_protect(&captured.guest[0], LEFT);
    cr_assert_gt(guest_protected(&captured.guest[0]), 0);
    cr_assert(doctor_speaks_of_it(NULL), "%s", said);
    cr_assert_not_null(strstr(said, "no capture of it runs or is kept"), "%s", said);
    do_as_printed();
    cr_assert(wait_until(doctor_says_nothing, NULL), "%s", said);
    writers_resume(captured.guest[0].writers);
    captured_end();
}
