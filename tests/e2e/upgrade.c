// SPDX-License-Identifier: Apache-2.0
//
// Another engine in a running server's place, and the old one again if the new one does not live.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/world.h"

enum { BYTES = 32 << 20 };

TestSuite(upgrade, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;
static char new_path[TEST_PATH];

static int touch_on(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    return world_touch_on(world, channel, shared);
}

static void copy_program(void)
{
    snprintf(new_path, sizeof(new_path), "%s", temp_path(&world->temp, "faultline-new"));
    int from = open(getenv("FAULTLINE_BIN"), O_RDONLY | O_CLOEXEC);
    int to = open(new_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
    struct stat status;
    cr_assert(from >= 0 && to >= 0 && fstat(from, &status) == 0);
    for (off_t left = status.st_size; left > 0;) {
        ssize_t sent = sendfile(to, from, NULL, (size_t)left);
        cr_assert_gt(sent, 0);
        left -= sent;
    }
    close(from);
    close(to);
}

static void begin(struct client *client, const char *trial_ms)
{
    const char *const extra[] = {"--upgrade-trial", trial_ms, NULL};
    world = world_make(MIXED, BYTES);
    world_serve(world, extra);
    copy_program();
    client_start(client, touch_on, NULL);
    cr_assert(client_says(client, 't'));
}

static void end(struct client *client)
{
    client_tell(client, 'g');
    cr_assert_eq(client_wait(client), 0);
    world_stop(world);
}

static int upgrade(const char *engine, const char *more, char *output, size_t size)
{
    const char *args[] = {"upgrade",  "--control", temp_path(&world->temp, "control.sock"),
                          "--engine", engine,      more,
                          NULL};
    return faultline_run(output, size, args);
}

static const char *program_of(pid_t pid)
{
    static char program[PATH_MAX];
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    ssize_t length = readlink(path, program, sizeof(program) - 1);
    program[length > 0 ? length : 0] = '\0';
    return program;
}

static void kill_engine(void)
{
    unsigned ready = server_count_log(&world->server, "event=ready pid=");
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "event=ready pid=", ready + 1));
}

Test(upgrade, costs_no_byte)
{
    char output[1024];
    struct client client;
    begin(&client, "100");
    pid_t before = server_engine(&world->server);
    cr_assert_eq(upgrade(new_path, NULL, output, sizeof(output)), 0, "%s", output);
    cr_assert_not_null(strstr(output, "done"), "%s", output);
    cr_expect_neq(server_engine(&world->server), before);
    cr_expect_str_eq(program_of(server_engine(&world->server)), new_path);
    cr_expect_str_neq(program_of(world->server.pid), new_path);
    cr_expect_eq(world_status(world, "keeper", "deaths"), 0);
    kill_engine(); // whose successor is of the new kind, too
    cr_expect_str_eq(program_of(server_engine(&world->server)), new_path);
    end(&client);
}

// How many filters of system calls the process has.
static long filters_of(pid_t pid)
{
    char path[64];
    char line[256];
    long count = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        sscanf(line, "Seccomp_filters: %ld", &count);
    if (file)
        fclose(file);
    return count;
}

// The keeper that is new by exec finds its predecessor's filter in force: another one each time
// would make the hundredth upgrade fail.
Test(upgrade, of_the_keeper_too)
{
    char output[1024];
    struct client client;
    begin(&client, "100");
    long outer = filters_of(getpid());
    cr_expect_eq(filters_of(world->server.pid), outer + 1);
    cr_expect_eq(filters_of(server_engine(&world->server)), outer + 2);
    cr_assert_eq(upgrade(new_path, "--keeper", output, sizeof(output)), 0, "%s", output);
    cr_assert(server_wait_log(&world->server, "event=keeper_exec", 1));
    cr_expect_str_eq(program_of(world->server.pid), new_path);
    kill_engine();
    cr_expect_eq(world_status(world, "keeper", "pid"), world->server.pid);
    cr_expect_eq(filters_of(world->server.pid), outer + 1);
    cr_expect_eq(filters_of(server_engine(&world->server)), outer + 2);
    end(&client);
}

Test(upgrade, to_what_does_not_get_ready_changes_nothing)
{
    char output[1024];
    struct client client;
    begin(&client, "100");
    pid_t before = server_engine(&world->server);
    world->server.deaths = 2; // of the new ones
    cr_expect_eq(upgrade("/bin/false", NULL, output, sizeof(output)), 1);
    cr_expect_not_null(strstr(output, "did not get ready: exit status 1"), "%s", output);
    cr_expect_eq(upgrade(temp_path(&world->temp, "nothing"), NULL, output, sizeof(output)), 1);
    cr_expect_eq(upgrade(world->store, NULL, output, sizeof(output)), 1);
    cr_expect_not_null(strstr(output, "failed: "), "%s", output);
    cr_expect_eq(upgrade(world->file, NULL, output, sizeof(output)), 1);
    cr_expect_not_null(strstr(output, "cannot be run"), "%s", output);
    cr_expect_eq(server_engine(&world->server), before);
    kill_engine();
    end(&client);
}

static bool is_on_trial(void *arg)
{
    (void)arg;
    return strcmp(program_of(server_engine(&world->server)), new_path) == 0;
}

// The new one takes over, and dies while it is on trial.
Test(upgrade, is_taken_back_if_the_new_one_dies)
{
    char output[1024];
    struct client client;
    begin(&client, "60000");
    pid_t verb = fork();
    if (verb == 0) {
        child_setup();
        int status = upgrade(new_path, NULL, output, sizeof(output));
        _exit(status == 1 && strstr(output, "rolled_back: the new engine did not live") ? 0 : 1);
    }
    cr_assert(wait_until(is_on_trial, NULL));
    kill_engine();
    int status = -1;
    cr_assert_eq(waitpid(verb, &status, 0), verb);
    cr_assert_eq(status, 0);
    cr_expect_str_neq(program_of(server_engine(&world->server)), new_path);
    end(&client);
}

Test(upgrade, is_one_at_a_time)
{
    char output[1024];
    struct client client;
    begin(&client, "3000");
    pid_t verb = fork();
    if (verb == 0) {
        child_setup();
        _exit(upgrade(new_path, NULL, NULL, 0));
    }
    cr_assert(wait_until(is_on_trial, NULL));
    cr_expect_eq(upgrade(new_path, NULL, output, sizeof(output)), 1);
    cr_expect_not_null(strstr(output, "an upgrade is under way"), "%s", output);
    int status = -1;
    cr_assert_eq(waitpid(verb, &status, 0), verb);
    cr_assert_eq(status, 0);
    end(&client);
}

// `env engine ...` runs what we put there as the new engine: it never says that it is ready.
static void put_sleeper(void)
{
    const char *path = temp_path(&world->temp, "engine");
    FILE *script = fopen(path, "we");
    cr_assert_not_null(script);
    fputs("#!/bin/sh\nexec sleep 1000\n", script);
    fclose(script);
    cr_assert_eq(chmod(path, 0700), 0);
}

Test(upgrade, does_not_keep_vms_waiting_if_the_old_one_dies)
{
    struct client client;
    char path[TEST_PATH + 64];
    const char *before = getenv("PATH");
    world = world_make(MIXED, BYTES);
    put_sleeper();
    snprintf(path, sizeof(path), "%.500s:/usr/bin:/bin", world->temp.path);
    setenv("PATH", path, 1);
    world_serve(world, NULL);
    if (before)
        setenv("PATH", before, 1);
    client_start(&client, touch_on, NULL);
    client_progressed(&client, 1);
    pid_t verb = fork();
    if (verb == 0) {
        child_setup();
        _exit(upgrade("/usr/bin/env", NULL, NULL, 0));
    }
    cr_assert(server_wait_log(&world->server, "state=starting", 1));
    kill_engine();
    cr_assert_eq(server_logs(&world->server, "the old engine died first", 1), 1);
    waitpid(verb, NULL, 0);
    end(&client);
}
