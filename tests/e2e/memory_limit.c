// SPDX-License-Identifier: Apache-2.0
//
// A VM at the limit of its memory cgroup, with swap: it comes to a lane, the status says why, all
// of its bytes are right, and another VM of the same worker is served meanwhile.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/swap.h"
#include "tests/support/world.h"

enum { BYTES = 64 << 20, LIMIT = 16 << 20, SWAP = 256 << 20 };

static struct world *world;
static char cgroup[128];

static int janitor[2] = {-1, -1}; // a pipe: its end tells a process to give back what was taken

static void leave_no_trace(void)
{
    for (unsigned i = 0; cgroup[0] && rmdir(cgroup) != 0 && i < 500; i++)
        poll(NULL, 0, 10);
}

// The cgroup goes whatever becomes of the test.
static void start_janitor(void)
{
    char byte;
    cr_assert_eq(pipe2(janitor, O_CLOEXEC), 0);
    if (fork() != 0)
        return;
    setsid();
    close(janitor[1]);
    while (read(janitor[0], &byte, 1) > 0) {
    }
    leave_no_trace();
    _exit(0);
}

static void give_back(void)
{
    swap_off();
    leave_no_trace();
    world_close();
}

TestSuite(memory_limit, .init = need_userfaultfd, .fini = give_back, .timeout = 180);

static bool put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", cgroup, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

static void need(bool has, const char *what)
{
    if (has)
        return;
    fprintf(stderr, "SKIPPED: this test needs %s\n", what);
    cr_assert(getenv("CI") == NULL, "CI=true, and there is no %s", what);
    cr_skip_test("no %s", what);
}

// Of either version, whichever has the memory controller here.
static void make_cgroup(void)
{
    static const char *const parents[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    char limit[32];
    snprintf(limit, sizeof(limit), "%d", LIMIT);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(cgroup, sizeof(cgroup), "%s/fl-test-%d", parents[i], (int)getpid());
        if (mkdir(cgroup, 0700) != 0)
            continue;
        if (put("memory.limit_in_bytes", limit) || put("memory.max", limit))
            return;
        rmdir(cgroup);
    }
    cgroup[0] = '\0';
    need(false, "a memory cgroup");
}

static int limited_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char pid[16];
    (void)arg;
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    CHECK(put("cgroup.procs", pid), "it cannot enter its cgroup");
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    await_test(channel, 't');
    // Until the test has seen it: what was swapped out comes in again, and others go.
    for (unsigned i = 0; i < 3; i++) {
        vmm_touch_all(&vmm, 2, VMM_UP, true);
    }
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

static int other_main(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    world_touch_when_told(world, channel, shared, 1);
    return 0;
}

static bool limit_was_met(void *arg)
{
    (void)arg;
    return world_vm_status(world, 1, "memory_limit", "met") > 0;
}

Test(memory_limit, gives_its_vm_a_lane_and_slows_nobody_else_down)
{
    static const char *const options[] = {"--workers", "1", "--hang-timeout", "2000", NULL};
    struct client limited;
    struct client other;
    world = world_make(DISTINCT, BYTES);
    make_cgroup();
    start_janitor();
    need(swap_on(temp_path(&world->temp, "swap"), SWAP), "a file system that can have a swap file");
    world_serve(world, options);
    client_start(&limited, limited_main, NULL);
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    client_start(&other, other_main, NULL);
    cr_assert(client_says(&other, 'a'));
    client_tell(&limited, 't');
    client_tell(&other, 't');
    cr_expect(wait_until(limit_was_met, NULL));
    cr_expect(server_wait_log(&world->server, "event=lane vm=1", 1));
    cr_expect_eq(world_vm_status(world, 1, "memory_limit", "bytes"), LIMIT);
    cr_expect_eq(client_wait(&other), 0);
    cr_assert(client_says(&limited, 'd'));
    client_tell(&limited, 'e');
    cr_expect_eq(client_wait(&limited), 0);
    cr_expect_eq(server_count_log(&world->server, "event=engine_hangs"), 0);
    world_stop(world);
}
