// SPDX-License-Identifier: Apache-2.0
//
// Where working sets may not become pages of 2 MiB, or cannot: for want of memory, of a right, or
// by what the VM's memory is. It is said, no time is lost on it, and all bytes are right.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/cgroup.h"
#include "tests/support/collapse_world.h"

enum { LIMIT = 40 << 20, ROOM = 16 << 20, TRACED = COLLAPSE_BYTES / 2 };

static struct world *world;
static const char *const on[] = {"--huge", "after-replay", NULL};

static void give_back(void)
{
    client_kill(&collapse_vm.client); // or it holds the cgroup
    cgroup_remove();
    world_close();
}

TestSuite(collapse_bounds, .init = need_userfaultfd, .fini = give_back, .timeout = 300);

static long long degraded(void)
{
    return (long long)server_count_log(&world->server, "event=degraded what=huge");
}

// --- memory ---

Test(collapse_bounds, nothing_is_completed_while_the_host_is_short_of_memory)
{
    static const char *const options[] = {"--huge", "after-replay", "--replay-reserve", "100",
                                          NULL};
    world = collapse_begin(DISTINCT, options, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "paused");
    collapse_tell("a"); // all is there now, and nothing to be completed
    collapse_await(world, 2, "paused");
    cr_assert_eq(collapse_of("filled"), 0);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

// The trace is 16 MiB of the VM's 32: what completes it must leave room below the limit.
Test(collapse_bounds, a_vm_is_not_filled_up_to_its_memory_limit)
{
    world = collapse_begin(DISTINCT, on, 2);
    cgroup_make(LIMIT);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .limited = true});
    collapse_await(world, 2, "paused");
    collapse_tell("c");
    cr_assert_eq(world_vm_status(world, 2, "memory_limit", "bytes"), LIMIT);
    cr_assert_leq(collapse_of("filled") * PAGE, LIMIT - ROOM - TRACED + HUGE);
    cr_assert_leq(collapse_of("huge"), collapse_vm.ranges / 2 + 1);
    collapse_finish();
}

static bool has_failed_five_times(void *arg)
{
    (void)arg;
    return world_status(world, "huge", "failed") >= 5;
}

static bool replay_is_done(void *arg)
{
    (void)arg;
    return world_vm_replay_is(world, 2, "done");
}

static void order_it(const char *vm)
{
    char output[1024];
    const char *order[] = {"huge", vm, "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), order), 0, "%s", output);
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// After three calls in vain it waits half a second before the next one, then twice as long each
// time, 4 s at most: so many there can have been by then.
static long long most_calls(long long ms)
{
    long long calls = 3;
    for (long long pause = 500, at = pause; at <= ms; at += pause) {
        calls++;
        pause = pause < 4000 ? 2 * pause : pause;
    }
    return calls;
}

// The kernel says EBUSY of full ranges in which the shared page of zeros is, as it does where the
// VM's limit has no room for a page of 2 MiB. (Linux 6.1 says EINVAL, and each is left.)
Test(collapse_bounds, calls_in_vain_become_rare)
{
    world = collapse_begin(EMPTY, NULL, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    cr_assert(wait_until(replay_is_done, NULL));
    long long begun = now_ms();
    order_it("2");
    cr_assert(wait_until(has_failed_five_times, NULL));
    long long failed = world_status(world, "huge", "failed");
    long long left = collapse_of("left");
    if (left == 0)
        cr_assert_leq(failed, most_calls(now_ms() - begun));
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

// --- rights ---

static void serve_without(const char *capabilities, const char *const *options)
{
    const char *real = getenv("FAULTLINE_BIN");
    collapse_need();
    world = world_make(DISTINCT, COLLAPSE_BYTES);
    const char *path = temp_path(&world->temp, "lesser");
    FILE *script = fopen(path, "we");
    cr_assert(real && script);
    fprintf(script, "#!/bin/sh\nexec setpriv --inh-caps=%s --bounding-set=%s '%s' \"$@\"\n",
            capabilities, capabilities, real);
    fclose(script);
    cr_assert_eq(chmod(path, 0700), 0);
    world_pack(world, world->file, "its_own");
    setenv("FAULTLINE_BIN", path, 1);
    world_serve(world, options);
    setenv("FAULTLINE_BIN", real, 1);
    collapse_record(world, COLLAPSE_PAGES, 2);
}

// What an engine may do is given at its start: it is said once, of all VMs.
Test(collapse_bounds, a_server_without_the_capability_says_so)
{
    static char output[1 << 17];
    serve_without("-sys_nice", on);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "refused");
    cr_assert(server_wait_log(&world->server, "event=degraded what=huge", 1));
    const char *ask[] = {"status", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), ask), 0);
    cr_assert_not_null(strstr(output, "working sets stay pages of 4 KiB"), "%s", output);
    faultline_run(output, sizeof(output), (const char *[]){"doctor", NULL}); // of all processes
    cr_assert_not_null(strstr(output, "(serve --huge), and lacks CAP_SYS_NICE:"), "%s", output);
    cr_assert_eq(world_status(world, "huge", "failed"), 1);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
    cr_assert_eq(degraded(), 1);
}

// It has no right that the server lacks, and may be traced until it says otherwise.
Test(collapse_bounds, a_vm_that_may_not_be_traced_is_left_alone)
{
    serve_without("-sys_ptrace,-perfmon,-sys_admin", NULL);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .no_rights = true});
    cr_assert(wait_until(replay_is_done, NULL));
    collapse_tell("p");
    order_it("2");
    collapse_await(world, 2, "refused");
    cr_assert(server_wait_log(&world->server, "event=huge_refused vm=2", 1));
    cr_assert_eq(world_status(world, "huge", "failed"), 1);
    cr_assert_eq(collapse_huge(), 0);
    struct collapse_vm untraceable = collapse_vm;
    collapse_start(world, collapse_vm.plan); // others are not
    order_it("3");
    collapse_await(world, 3, "done");
    cr_assert_eq(collapse_huge(), collapse_vm.ranges);
    collapse_end();
    collapse_vm = untraceable;
    collapse_finish();
    cr_assert_eq(server_count_log(&world->server, "event=huge_refused"), 1);
    cr_assert_eq(degraded(), 0);
}

// --- what the memory is ---

Test(collapse_bounds, a_vm_that_has_huge_pages_switched_off_is_left_alone)
{
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .thp_off = true});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_of("left"), collapse_vm.ranges);
    cr_assert_eq(world_status(world, "huge", "failed"), collapse_vm.ranges);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

Test(collapse_bounds, a_range_in_which_a_mapping_ends_is_left_alone)
{
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .boundary = true});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_of("left"), COLLAPSE_REGIONS);
    cr_assert_eq(collapse_huge(), collapse_vm.ranges - COLLAPSE_REGIONS);
    collapse_finish();
}
