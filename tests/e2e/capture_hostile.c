// SPDX-License-Identifier: Apache-2.0
//
// Clients of CONTROL.keeper that ask for what cannot be had, or do not keep to the protocol of
// captures: they are told so, or cut off, and neither the VM nor another client suffers.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/capture_world.h"

TestSuite(capture_hostile, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

Test(capture_hostile, is_refused_for_what_is_no_vm)
{
    struct capture_client capture;
    captured_begin(NULL, 0);
    connect_capture(&capture);
    cr_assert_eq(capture_begin(&capture, 77, 0), -ESRCH);
    cr_assert_str_eq(capture.text, "there is no VM 77");
    capture_close(&capture);
    connect_capture(&capture);
    cr_assert_eq(capture_begin(&capture, 1, 1 << 20), -EINVAL);
    cr_assert_not_null(strstr(capture.text, "does not know all"), "%s", capture.text);
    capture_close(&capture);
    cr_assert_eq(world_status(captured.world, "captures", "failed"), 2);
    cr_assert_eq(server_logs(&captured.world->server, "event=capture_refused vm=77 image=-", 1), 1);
    captured_end();
}

static void expect_cut_off(struct capture_client *capture, int failed)
{
    cr_assert_not(capture_await(capture, FL_CAPTURE_KEPT));
    cr_assert_eq(capture->error, -EPROTO, "%d: %s", capture->error, capture->text);
    capture_close(capture);
    cr_assert(wait_until(captures_failed, &failed));
    cr_assert(wait_until(no_capture_runs, NULL));
    guest_is_free(&captured.guest[0]);
}

static void send_descriptor(const struct capture_client *capture)
{
    int fds[1] = {STDERR_FILENO};
    struct fl_message message = {.type = FL_MESSAGE_CAPTURE_FREEZE, .slots = 1, .mask = 1};
    cr_assert_eq(fl_channel_send(capture->channel, &message, fds, true), 0);
}

Test(capture_hostile, ends_when_its_client_says_what_it_must_not)
{
    struct capture_client capture;
    struct fl_message other = {.type = FL_MESSAGE_HELLO};
    captured_begin(NULL, 0);
    begin_capture(&capture, 1, 0);
    cr_assert(capture_await(&capture, FL_CAPTURE_READY));
    cr_assert(capture_commit(&capture, "too early"));
    expect_cut_off(&capture, 1);
    begin_capture(&capture, 1, 0);
    cr_assert_gt(write(capture.channel, "nonsense", 8), 0);
    expect_cut_off(&capture, 2);
    begin_capture(&capture, 1, 0);
    cr_assert(capture_await(&capture, FL_CAPTURE_READY));
    send_descriptor(&capture);
    expect_cut_off(&capture, 3);
    begin_capture(&capture, 1, 0);
    cr_assert_eq(fl_channel_send(capture.channel, &other, NULL, true), 0);
    expect_cut_off(&capture, 4);
    begin_capture(&capture, 1, 0);
    cr_assert(capture_await(&capture, FL_CAPTURE_READY));
    pause_guest(&captured.guest[0]);
    cr_assert(capture_freeze(&capture) && capture_freeze(&capture));
    expect_cut_off(&capture, 5);
    capture_all(&capture, &captured.guest[0], 1, 0);
    cr_assert(capture_commit(&capture, "not-a-content-id image"));
    expect_cut_off(&capture, 6);
    begin_capture(&capture, 1, FL_CAPTURE_KEEP_ARMED);
    freeze_capture(&capture, &captured.guest[0]);
    cr_assert(capture_freeze(&capture)); // once more
    expect_cut_off(&capture, 7);
    capture_works(&captured.guest[0], 1);
    captured_end();
}

// It reads nothing, and says much: the captured.control thread waits for none of it.
Test(capture_hostile, of_a_client_that_does_not_read_holds_up_nothing)
{
    struct capture_client capture;
    struct capture_client silent;
    struct fl_message order = {.type = FL_MESSAGE_CAPTURE, .id = 1};
    int failed = 1;
    captured_begin(NULL, 0);
    connect_capture(&silent); // says nothing at all
    connect_capture(&capture);
    for (int i = 0; i < 1000; i++) {
        if (fl_channel_send(capture.channel, &order, NULL, false) != 0)
            break;
    }
    cr_assert(wait_until(captures_failed, &failed));
    capture_close(&capture);
    cr_assert(wait_until(no_capture_runs, NULL));
    capture_works(&captured.guest[0], 1);
    capture_close(&silent);
    captured_end();
}
