// SPDX-License-Identifier: Apache-2.0
//
// A server without any privilege: of an ordinary user, with no capability, and VMs of the same user
// and of another. And the modes of the filter of system calls.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(confinement, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

enum { BYTES = 4 << 20, SERVER_USER = 23456, OTHER_USER = 34567, NAME = 32 };
enum { SIGBUS_STATUS = 128 + SIGBUS, SIGKILL_STATUS = 128 + SIGKILL };

static struct world *world;

// --- a server of an ordinary user ---

// The program, where that user can start it, and a folder of its own for everything.
static void install(const char *real, const char *copy)
{
    char command[4 * TEST_PATH];
    snprintf(command, sizeof(command), "install -m 755 '%s' '%s' && chmod 644 '%s'", real, copy,
             world->file);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(chown(world->temp.path, SERVER_USER, SERVER_USER), 0);
    cr_assert_eq(chmod(world->temp.path, 0755), 0);
}

static void serve_unprivileged(const char *const *extra)
{
    char copy[2 * TEST_PATH];
    const char *real = getenv("FAULTLINE_BIN");
    world = world_make(DISTINCT, BYTES);
    snprintf(copy, sizeof(copy), "%s", temp_path(&world->temp, "program"));
    install(real, copy);
    const char *path = temp_path(&world->temp, "start");
    FILE *script = fopen(path, "we");
    cr_assert_not_null(script);
    fprintf(script,
            "#!/bin/sh\n"
            "exec setpriv --reuid %d --regid %d --clear-groups --inh-caps=-all --bounding-set=-all "
            "'%s' \"$@\"\n",
            SERVER_USER, SERVER_USER, copy);
    fclose(script);
    cr_assert_eq(chmod(path, 0755), 0);
    setenv("FAULTLINE_BIN", path, 1);
    world_serve(world, extra);
    setenv("FAULTLINE_BIN", real, 1);
}

// The number behind this key of /proc/PID/status.
static unsigned long long of_process(pid_t pid, const char *key, int base)
{
    char path[64];
    char line[256];
    unsigned long long number = 99;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, strlen(key)) == 0)
            number = strtoull(line + strlen(key), NULL, base);
    }
    if (file)
        fclose(file);
    return number;
}

static void expect_no_privilege(pid_t pid)
{
    cr_expect_eq(of_process(pid, "Uid:", 10), SERVER_USER);
    cr_expect_eq(of_process(pid, "CapPrm:", 16), 0);
    cr_expect_eq(of_process(pid, "NoNewPrivs:", 10), 1);
    cr_expect_eq(of_process(pid, "Seccomp:", 10), 2);
}

// --- VMs ---

static void become(uid_t user)
{
    CHECK(setgroups(0, NULL) == 0 && setgid(user) == 0 && setuid(user) == 0, "user %u", user);
    // As a program has it that was started as this user.
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0, "prctl");
}

// With a userfaultfd that root has let it have.
static int vm_main(int channel, struct client_shared *shared, void *user)
{
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    become((uid_t)(uintptr_t)user);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 3);
    tell_test(channel, 'h');
    await_test(channel, 't');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, false);
    return 0;
}

static void start_vm(struct client *client, uintptr_t user)
{
    client_start(client, vm_main, (void *)user); // NOLINT(performance-no-int-to-ptr)
    cr_assert(client_says(client, 'h'));
}

// No frame of the image that was not read yet can be had.
static void spoil(void)
{
    glob_t found;
    struct stat status;
    static const uint8_t noise[4096] = {0xa5};
    cr_assert_eq(glob(temp_path(&world->temp, "store/packs/*.pack"), 0, NULL, &found), 0);
    int fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &status) == 0);
    for (off_t at = 4096; at < status.st_size; at += (off_t)sizeof(noise))
        cr_assert_gt(pwrite(fd, noise, sizeof(noise), at), 0);
    close(fd);
    globfree(&found);
}

Test(confinement, an_ordinary_user_serves_its_own)
{
    struct client client;
    serve_unprivileged(NULL);
    start_vm(&client, SERVER_USER);
    cr_expect_eq(world_status(world, "", "unowned"), 0);
    expect_no_privilege(world->server.pid);
    expect_no_privilege(server_engine(&world->server));
    unsigned ready = server_count_log(&world->server, "event=ready pid=");
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "event=ready pid=", ready + 1));
    client_tell(&client, 't');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
    cr_expect_eq(server_count_log(&world->server, "event=degraded"), 0);
}

Test(confinement, an_ordinary_user_kills_its_own)
{
    static const char *const kill_it[] = {"--retries", "0", "--on-error", "kill", NULL};
    struct client client;
    serve_unprivileged(kill_it);
    start_vm(&client, SERVER_USER);
    spoil();
    client_tell(&client, 't');
    cr_assert_eq(client_wait(&client), SIGKILL_STATUS);
    cr_expect(server_wait_log(&world->server, "event=kill vm=1", 1));
    // A VM that is still being killed as the server is told to end is one that it did not complete.
    cr_expect(server_wait_log(&world->server, "event=detach vm=1", 1));
    world_stop(world);
}

// It is served; whose memory it is cannot be seen, and so it is poisoned and not killed.
Test(confinement, an_ordinary_user_serves_others_and_cannot_kill_them)
{
    static const char *const options[] = {"--retries",  "0",    "--mode", "666",
                                          "--on-error", "kill", NULL};
    struct client client;
    serve_unprivileged(options);
    start_vm(&client, OTHER_USER);
    cr_expect_eq(world_status(world, "", "unowned"), 1);
    spoil();
    client_tell(&client, 't');
    cr_assert_eq(client_wait(&client), SIGBUS_STATUS);
    cr_expect(server_wait_log(&world->server, "event=kill_failed vm=1", 1));
    world_stop(world);
}

// --- the filter of system calls ---

static void serve_with(const char *mode)
{
    const char *const options[] = {"--seccomp", mode, NULL};
    world = world_make(DISTINCT, BYTES);
    world_serve(world, options);
}

static int touch_main(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    world_touch_when_told(world, channel, shared, 1);
    return 0;
}

static void serves(void)
{
    struct client client;
    client_start(&client, touch_main, NULL);
    cr_assert(client_says(&client, 'a'));
    client_tell(&client, 't');
    cr_assert_eq(client_wait(&client), 0);
}

// A thread that blocks SIGSYS would take the process with it. (That of liburcu, which has the name
// of the process, is not ours.)
static void check_threads_can_be_refused(void)
{
    char command[512];
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)server_engine(&world->server));
    snprintf(command, sizeof(command),
             "test $(grep -l ^fl- %s/*/comm | wc -l) -gt 4 || exit 2\n"
             "for thread in $(grep -l ^fl- %s/*/comm); do\n"
             "  mask=$(sed -n 's/^SigBlk:[^0-9a-f]*//p' ${thread%%comm}status)\n"
             "  test $(( 0x${mask#????????} >> %d & 1 )) = 0 || exit 1\n"
             "done",
             path, path, SIGSYS - 1);
    cr_expect_eq(system(command), 0, "%s", command);
}

Test(confinement, on_is_the_default_for_all_threads)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    char pattern[64];
    glob_t found;
    snprintf(pattern, sizeof(pattern), "/proc/%d/task/*/status",
             (int)server_engine(&world->server));
    cr_assert_eq(glob(pattern, 0, NULL, &found), 0);
    cr_expect_gt(found.gl_pathc, 4);
    for (size_t i = 0; i < found.gl_pathc; i++)
        cr_expect_eq(of_process((pid_t)strtol(strstr(found.gl_pathv[i], "task/") + 5, NULL, 10),
                                "Seccomp:", 10),
                     2, "%s", found.gl_pathv[i]);
    globfree(&found);
    serves();
    check_threads_can_be_refused();
    cr_expect_eq(world_status(world, "", "refused_calls"), 0);
    world_stop(world);
}

#ifdef FOREIGN_CALL_LIBRARY
static bool has_refused(void *arg)
{
    (void)arg;
    return world_status(world, "", "refused_calls") > 0;
}

// A call that no test has seen: it fails, is counted and told once, and the server serves.
Test(confinement, a_foreign_call_is_refused_and_told_and_ends_nothing)
{
    const char *real = getenv("FAULTLINE_BIN");
    world = world_make(DISTINCT, BYTES);
    const char *path = temp_path(&world->temp, "start");
    FILE *script = fopen(path, "we");
    cr_assert(real && script);
    fprintf(script, "#!/bin/sh\nunset FAULTLINE_UNLISTED\nLD_PRELOAD='%s' exec '%s' \"$@\"\n",
            FOREIGN_CALL_LIBRARY, real);
    fclose(script);
    cr_assert_eq(chmod(path, 0755), 0);
    setenv("FAULTLINE_BIN", path, 1);
    world_serve(world, NULL);
    setenv("FAULTLINE_BIN", real, 1);
    cr_assert(wait_until(has_refused, NULL));
    serves();
    cr_assert(server_wait_log(&world->server, "event=call_refused call=times", 1));
    world_stop(world);
    cr_expect_eq(server_logs(&world->server, "event=call_refused", 1), 1);
}
#endif

Test(confinement, log_refuses_nothing_and_says_so)
{
    serve_with("log");
    cr_expect_eq(server_logs(&world->server, "event=degraded what=seccomp", 1), 1);
    serves();
    world_stop(world);
}

Test(confinement, off_installs_nothing)
{
    unsigned long long outer = of_process(getpid(), "Seccomp_filters:", 10);
    serve_with("off");
    cr_expect_eq(of_process(world->server.pid, "Seccomp_filters:", 10), outer);
    cr_expect_eq(of_process(server_engine(&world->server), "Seccomp_filters:", 10), outer);
    serves();
    world_stop(world);
}
