// SPDX-License-Identifier: Apache-2.0
//
// Signals that somebody sends by mistake, or the kernel over a limit: keeper, engine and standby
// live on, and so do their VMs.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(signals, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

enum {
    BYTES = 4 << 20,
    LARGE = 128 << 20,
    ORDINARY = 32
}; // signals from 32 on are real-time signals

static struct world *world;
static struct client client;

// Touches half, says so, and touches all when it is told to.
static int touch_in_two(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    for (uint32_t page = 0; page < vmm.pages / 2; page++)
        vmm_check(&vmm, page);
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 1, VMM_UP, true);
    return 0;
}

static void begin_with(uint64_t bytes)
{
    world = world_make(MIXED, bytes);
    world_serve(world, NULL);
    client_start(&client, touch_in_two, NULL);
    cr_assert(client_says(&client, 't'));
}

static void begin(void)
{
    begin_with(BYTES);
}

static void end(void)
{
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// What ends any program with a core, what no program can catch, and what the caller leaves out.
static bool means_something(int number, const int *meant)
{
    static const int always[] = {SIGKILL, SIGSTOP, SIGCONT, SIGQUIT, SIGILL, SIGTRAP,
                                 SIGABRT, SIGBUS,  SIGFPE,  SIGSEGV, SIGSYS, 0};
    for (const int *at = always; *at; at++) {
        if (*at == number)
            return true;
    }
    for (; *meant; meant++) {
        if (*meant == number)
            return true;
    }
    return number >= ORDINARY && number < SIGRTMIN; // the C library's own
}

struct process {
    pid_t pid;
    char state; // 0: it is gone
    unsigned long long pending;
};

static bool look(struct process *process)
{
    char path[64];
    char line[256];
    unsigned long long pending = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)process->pid);
    FILE *file = fopen(path, "re");
    process->state = 0;
    process->pending = 0;
    while (file && fgets(line, sizeof(line), file)) {
        sscanf(line, "State: %c", &process->state);
        if (sscanf(line, "ShdPnd: %llx", &pending) == 1 ||
            sscanf(line, "SigPnd: %llx", &pending) == 1)
            process->pending |= pending;
    }
    if (file)
        fclose(file);
    return process->state != 0;
}

// Ended, stopped, or it has taken all there was.
static bool settled(void *arg)
{
    struct process *process = arg;
    return !look(process) || strchr("ZXTt", process->state) || process->pending == 0;
}

static void bombard(pid_t pid, const char *who, const int *meant)
{
    for (int number = 1; number <= SIGRTMAX; number++) {
        struct process process = {.pid = pid};
        if (means_something(number, meant))
            continue;
        cr_assert_eq(kill(pid, number), 0, "%s, before signal %d", who, number);
        cr_assert(wait_until(settled, &process), "%s does not take signal %d", who, number);
        cr_expect(process.state && !strchr("ZXTt", process.state), "%s: signal %d (%s): state %c",
                  who, number, strsignal(number), process.state ? process.state : '-');
    }
}

static bool stands_by(void *arg)
{
    long long *pid = arg;
    *pid = world_status(world, "keeper", "standby_pid");
    return *pid > 0 && server_count_log(&world->server, "event=engine_ready") > 0;
}

Test(signals, that_mean_nothing_to_the_keeper)
{
    static const int meant[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGTSTP, 0};
    begin();
    bombard(world->server.pid, "the keeper", meant);
    end();
}

Test(signals, that_mean_nothing_to_the_engine)
{
    static const int meant[] = {SIGTERM, 0};
    begin();
    bombard(server_engine(&world->server), "the engine", meant);
    end();
}

Test(signals, that_mean_nothing_to_the_standby)
{
    static const int meant[] = {SIGTERM, 0};
    long long standby = 0;
    begin();
    cr_assert(wait_until(stands_by, &standby));
    bombard((pid_t)standby, "the standby", meant);
    cr_expect_eq(world_status(world, "keeper", "standby_pid"), standby);
    end();
}

static bool keeper_sleeps(void *arg)
{
    struct process keeper = {.pid = world->server.pid};
    (void)arg;
    return look(&keeper) && keeper.state == 'S' && keeper.pending == 0;
}

// As pkill, a shell and KillMode=control-group send it: that is one order to stop, and not two, of
// which the second would mean that VMs are not waited for.
Test(signals, that_end_the_whole_group_leave_vms_their_time)
{
    begin_with(LARGE); // what is left of it is not filled between the two

    server_pause(&world->server);
    cr_assert_eq(kill(server_engine(&world->server), SIGTERM), 0);
    cr_assert_eq(kill(world->server.pid, SIGTERM), 0);
    cr_assert(server_wait_log(&world->server, "event=stopping", 1));
    cr_assert(wait_until(keeper_sleeps, NULL)); // it has sent its order
    server_resume(&world->server);
    cr_assert(server_wait_log(&world->server, "event=stopped", 1));
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_expect_eq(server_count_log(&world->server, "event=kill"), 0);
    world_stop(world);
}

// A second signal to the same process means that VMs are not waited for.
Test(signals, a_second_one_to_the_keeper_ends_vms_at_once)
{
    begin_with(LARGE);
    server_pause(&world->server);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(kill(world->server.pid, SIGTERM), 0);
        cr_assert(wait_until(keeper_sleeps, NULL)); // it has taken the signal, and sent its order
    }
    server_resume(&world->server);
    cr_assert_eq(client_wait(&client), 128 + SIGKILL);
    cr_expect_eq(server_stop(&world->server), 3, "not every VM was completed");
}

// What runs the program as a parent would that ignores SIGCHLD.
static void put_wrapper(const char *path)
{
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    fprintf(file, "#!/bin/sh\nexec env --ignore-signal=CHLD '%s' \"$@\"\n",
            getenv("FAULTLINE_BIN"));
    cr_assert_eq(fchmod(fileno(file), 0755), 0);
    cr_assert_eq(fclose(file), 0);
}

// The kernel would collect the engines, and the keeper would not see them end.
Test(signals, a_parent_that_ignores_its_children)
{
    world = world_make(MIXED, BYTES);
    const char *wrapper = temp_path(&world->temp, "wrapper");
    put_wrapper(wrapper);
    setenv("FAULTLINE_BIN", wrapper, 1);
    world_serve(world, NULL);
    client_start(&client, touch_in_two, NULL);
    cr_assert(client_says(&client, 't'));
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "event=engine_died", 1));
    end();
}

// A bound on the size of files, which holds for memory that is a file, too.
Test(signals, a_limit_on_files_does_not_end_the_engine)
{
    struct rlimit before;
    world = world_make(MIXED, BYTES);
    world_pack(world, world->file, "image");
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit low = {.rlim_cur = 16, .rlim_max = before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
    bool serves = server_serve(&world->server, &world->temp, world->store, NULL);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    cr_assert(serves);
    world->socket = temp_path(&world->temp, "sockets/image.sock");
    client_start(&client, touch_in_two, NULL);
    cr_assert(client_says(&client, 't'));
    end();
}
