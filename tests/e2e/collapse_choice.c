// SPDX-License-Identifier: Apache-2.0
//
// Which VMs get pages of 2 MiB without a pool: as the server's option says, or the socket that they
// come by, or an order; and so it stays when engines die.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/support/collapse_world.h"

TestSuite(collapse_choice, .init = need_userfaultfd, .fini = world_close, .timeout = 300);

static struct world *world;
static const char *const on[] = {"--huge", "after-replay", NULL};
static char output[4096];

static const char *control(void)
{
    return temp_path(&world->temp, "control.sock");
}

static int listen_with(const char *socket, const char *huge)
{
    char path[2 * TEST_PATH];
    snprintf(path, sizeof(path), "%s", control());
    return faultline_run(output, sizeof(output),
                         (const char *[]){"listen", "--image", "image", "--socket", socket,
                                          "--huge", huge, "--control", path, NULL});
}

static int order(const char *vm, const char *huge)
{
    return faultline_run(output, sizeof(output),
                         (const char *[]){"huge", vm, "--set", huge, "--control", control(), NULL});
}

static bool replay_is_done(void *arg)
{
    (void)arg;
    return world_vm_replay_is(world, 2, "done");
}

static const char *other_socket(void)
{
    static char socket[2 * TEST_PATH];
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "other.sock"));
    return socket;
}

// The VM comes to the successor of the engine that was told to listen.
Test(collapse_choice, a_socket_can_have_them_alone)
{
    world = collapse_begin(DISTINCT, NULL, 2);
    const char *socket = other_socket();
    cr_assert_eq(listen_with(socket, "after-replay"), 0, "%s", output);
    cr_assert_eq(listen_with(socket, "after-replay"), 0, "%s", output);
    cr_assert_eq(listen_with(socket, "off"), 1, "%s", output);
    cr_assert_not_null(strstr(output, "another choice of huge pages"), "%s", output);
    cr_assert(server_kill_engine(&world->server));
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .socket = socket});
    collapse_await(world, 1, "done"); // the successor has had no VM before
    cr_assert_eq(collapse_huge(), collapse_vm.ranges);
    collapse_finish();
}

Test(collapse_choice, a_socket_can_go_without)
{
    world = collapse_begin(DISTINCT, on, 2);
    const char *socket = other_socket();
    cr_assert_eq(listen_with(socket, "off"), 0, "%s", output);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .socket = socket});
    cr_assert(wait_until(replay_is_done, NULL));
    collapse_await(world, 2, "off");
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

Test(collapse_choice, a_vm_can_be_given_them_later)
{
    world = collapse_begin(DISTINCT, NULL, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    cr_assert(wait_until(replay_is_done, NULL));
    collapse_await(world, 2, "off");
    cr_assert_eq(order("2", "after-replay"), 0, "%s", output);
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_huge(), collapse_vm.ranges);
    cr_assert_eq(collapse_of("wanted"), collapse_vm.ranges);
    collapse_tell("r"); // told once more, it goes on with what can be
    cr_assert_eq(order("2", "after-replay"), 0, "%s", output);
    collapse_await(world, 2, "done");
    collapse_finish();
}

// Also by an engine that knows of the order by the VM's state alone.
Test(collapse_choice, a_vm_can_be_left_alone)
{
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "done");
    cr_assert_eq(order("2", "off"), 0, "%s", output);
    collapse_await(world, 2, "off");
    cr_assert(server_kill_engine(&world->server));
    cr_assert(server_wait_log(&world->server, "event=adopt vm=2", 1));
    collapse_await(world, 2, "off");
    cr_assert_eq(order("2", "after-replay"), 0, "%s", output);
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_huge(), collapse_vm.ranges);
    collapse_finish();
}

// What it gives back would be the image's bytes again, and the kernel puts no page of a file
// together.
Test(collapse_choice, a_vm_of_a_template_cannot_have_them)
{
    char socket[2 * TEST_PATH];
    world = collapse_begin(DISTINCT, on, 2);
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "sockets/image.template"));
    const char *make[] = {"template", "image", "--control", control(), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), make), 0, "%s", output);
    collapse_start(world, (struct collapse_plan){.template = true, .socket = socket});
    cr_assert(wait_until(replay_is_done, NULL));
    collapse_await(world, 2, "off");
    cr_assert_eq(order("2", "after-replay"), 1, "%s", output);
    cr_assert_not_null(strstr(output, "it maps a template"), "%s", output);
    cr_assert_eq(order("99", "off"), 1, "%s", output);
    cr_assert_not_null(strstr(output, "there is no VM 99"), "%s", output);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}
