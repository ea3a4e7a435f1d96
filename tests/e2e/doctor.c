// SPDX-License-Identifier: Apache-2.0
//
// The doctor's word: he accuses no server that works, finds one that does not, names what is
// stopped and what he cannot see; and the command that he prints mends it as it is printed.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"
#include "tests/support/orphan.h"
#include "tests/support/stop.h"

enum { BUSY = 3, RUNS = 50 };

TestSuite(doctor, .init = orphan_begin, .fini = orphan_end, .timeout = 240);

static const struct orphan_plan plain = {.page_bytes = PAGE, .regions = 1};

static int run_doctor(void)
{
    const char *args[] = {"doctor", NULL};
    return faultline_run(orphan_output, sizeof(orphan_output), args);
}

// Other tests may leave VMs without a handler meanwhile: that is none of ours.
static bool speaks_of(pid_t pid)
{
    char number[32];
    snprintf(number, sizeof(number), "(pid %d", (int)pid);
    return strstr(orphan_output, number) != NULL;
}

static bool doctor_says_nothing(void *arg)
{
    (void)arg;
    run_doctor();
    return !speaks_of(orphan_client.pid) && !speaks_of(orphan_world->server.pid) &&
           !speaks_of(server_engine(&orphan_world->server));
}

// --- what is printed is done ---

// The program under its own name, as a shell finds it.
static void enter_path(void)
{
    char path[2 * TEST_PATH];
    const char *directory = temp_path(&orphan_world->temp, "bin");
    const char *binary = getenv("FAULTLINE_BIN");
    if (!binary || mkdir(directory, 0700) != 0 ||
        symlink(binary, temp_path(&orphan_world->temp, "bin/faultline")) != 0)
        _exit(126);
    snprintf(path, sizeof(path), "%s:/usr/bin:/bin", directory);
    setenv("PATH", path, 1);
    setenv("FAULTLINE_STORE", orphan_world->store, 1);
    setenv("FAULTLINE_CONTROL", temp_path(&orphan_world->temp, "control.sock"), 1);
}

// Of the doctor's last words on the process: the line after `before`, up to its end.
static void take_line(pid_t of, const char *before, char *line, size_t size)
{
    char number[32];
    snprintf(number, sizeof(number), "(pid %d", (int)of);
    const char *at = strstr(orphan_output, number);
    at = at ? strstr(at, before) : NULL;
    cr_assert(at, "no '%s' of %d in: %s", before, (int)of, orphan_output);
    at += strlen(before);
    at += strspn(at, " \n");
    snprintf(line, size, "%.*s", (int)strcspn(at, "\n"), at);
}

static void do_as_printed(pid_t of, const char *before)
{
    char line[512];
    take_line(of, before, line, sizeof(line));
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        child_setup();
        enter_path();
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "'%s' ends with status %d", line, status);
}

Test(doctor, an_orphan_is_rescued_as_printed)
{
    orphan_make(MIXED, &plain);
    world_serve(orphan_world, NULL);
    expect_doctor("faultline rescue --nothing-removed %d\n", (int)orphan_client.pid);
    expect_doctor("only if     its guest has given no memory back");
    do_as_printed(orphan_client.pid, "to mend ");
    expect_served();
}

Test(doctor, an_orphan_whose_guest_gave_memory_back_is_poisoned_as_printed)
{
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 1, .removes = true, .poisoned = true};
    orphan_make(MIXED, &plan);
    world_serve(orphan_world, NULL);
    expect_doctor("faultline rescue --poison %d\n", (int)orphan_client.pid);
    do_as_printed(orphan_client.pid, "; else:");
    expect_served();
}

static int find_uffd(void *arg, const struct fl_proc_fd *fd)
{
    int *number = arg;
    if (strcmp(fd->target, "anon_inode:[userfaultfd]") != 0)
        return 0;
    *number = fd->fd;
    return 1;
}

// A process that has the VM's userfaultfd, and does nothing.
static pid_t spawn_holder(pid_t vm)
{
    int fd = -1;
    cr_assert_eq(fl_proc_each_fd(vm, find_uffd, &fd), 1);
    int taken = fl_proc_take_fd(vm, vm, fd);
    cr_assert_geq(taken, 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        child_setup();
        for (;;)
            pause();
    }
    close(taken);
    return pid;
}

// The one who held it is not gone yet when the second command looks.
Test(doctor, a_vm_whose_handler_does_nothing_is_rescued_as_printed)
{
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_handler(orphan_world, NULL);
    orphan_start_vmm(&plain);
    pid_t holder = spawn_holder(orphan_client.pid);
    server_kill(&orphan_world->server);
    orphan_go_on(ORPHAN_THREADS);
    world_serve(orphan_world, NULL);
    expect_doctor("kill -KILL %d; faultline rescue --nothing-removed %d\n", (int)holder,
                  (int)orphan_client.pid);
    do_as_printed(orphan_client.pid, "to mend ");
    cr_expect_eq(waitpid(holder, NULL, 0), holder);
    expect_served();
}

// --- a holder that was killed, and cannot end yet ---

#define FREEZER "/sys/fs/cgroup/freezer"

static char freezer[128]; // a control group of the test's own; empty: none

static bool write_freezer(const char *file, const char *text)
{
    char path[192];
    snprintf(path, sizeof(path), "%s/%s", freezer, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return written;
}

static bool is_frozen(void *arg)
{
    char path[192];
    char text[32] = "";
    (void)arg;
    snprintf(path, sizeof(path), "%s/freezer.state", freezer);
    return fl_proc_read(path, text, sizeof(text)) > 0 && strcmp(text, "FROZEN\n") == 0;
}

static bool has_removed_freezer(void *arg)
{
    (void)arg;
    return rmdir(freezer) == 0 || errno == ENOENT;
}

static void thaw(void)
{
    if (freezer[0] == '\0')
        return;
    write_freezer("freezer.state", "THAWED");
    wait_until(has_removed_freezer, NULL);
}

static void freeze(pid_t pid)
{
    char number[16];
    const char *ci = getenv("CI");
    bool there = access(FREEZER "/cgroup.procs", F_OK) == 0;
    cr_assert(there || !ci || strcmp(ci, "true") != 0, "CI must have the freezer of cgroup v1");
    if (!there)
        cr_skip_test("this test needs the freezer of cgroup v1");
    snprintf(freezer, sizeof(freezer), FREEZER "/fl-doctor-%d", (int)getpid());
    snprintf(number, sizeof(number), "%d", (int)pid);
    cr_assert_eq(mkdir(freezer, 0700), 0);
    cr_assert(write_freezer("cgroup.procs", number) && write_freezer("freezer.state", "FROZEN"));
    cr_assert(wait_until(is_frozen, NULL));
}

// It runs no program any more, whenever the kernel comes to end it.
Test(doctor, a_holder_that_was_killed_and_cannot_end_yet, .fini = thaw)
{
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_handler(orphan_world, NULL);
    orphan_start_vmm(&plain);
    pid_t holder = spawn_holder(orphan_client.pid);
    server_kill(&orphan_world->server);
    orphan_go_on(ORPHAN_THREADS);
    world_serve(orphan_world, NULL);
    freeze(holder);
    EXPECT_REFUSED("is no orphan", "--nothing-removed");
    cr_assert_eq(kill(holder, SIGKILL), 0);
    EXPECT_DONE("--nothing-removed");
    thaw();
    cr_expect_eq(waitpid(holder, NULL, 0), holder);
    expect_served();
}

// --- a server that works ---

// Touches all of its memory, gives all of it back, and so on.
static int be_busy(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct world *world = arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, 'h');
    for (uint64_t round = 1; round > 0; round++) { // until it is killed
        vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
        vmm_remove(&vmm, 0, vmm.pages);
        for (uint32_t page = 0; page < vmm.pages; page++)
            vmm.removed[page] = true;
    }
    return 0;
}

// Whatever is seen of it in the moment of a look.
Test(doctor, a_busy_server_is_never_accused)
{
    struct client client[BUSY] = {0};
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_serve(orphan_world, NULL);
    for (int i = 0; i < BUSY; i++) {
        client_start(&client[i], be_busy, orphan_world);
        cr_assert(client_says(&client[i], 'h'));
    }
    for (int run = 0; run < RUNS; run++) {
        cr_expect(doctor_says_nothing(NULL), "run %d: %s", run, orphan_output);
        for (int i = 0; i < BUSY; i++)
            cr_expect_not(speaks_of(client[i].pid), "run %d: %s", run, orphan_output);
    }
    for (int i = 0; i < BUSY; i++) {
        cr_expect_gt(client[i].shared->progress, RUNS);
        client_kill(&client[i]);
    }
    world_stop(orphan_world);
}

// --- what is stopped ---

Test(doctor, a_stopped_keeper_is_named)
{
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_serve(orphan_world, NULL);
    orphan_start_vmm(&plain);
    cr_assert(process_stop(orphan_world->server.pid));
    expect_doctor("faultline-keepe (pid %d) is stopped, by a signal: the keeper of Faultline",
                  (int)orphan_world->server.pid);
    expect_doctor("kill -CONT %d\n", (int)orphan_world->server.pid);
    do_as_printed(orphan_world->server.pid, "to mend ");
    cr_expect(wait_until(doctor_says_nothing, NULL), "%s", orphan_output);
    client_tell(&orphan_client, 'g');
    expect_served();
}

// A VM that is paused by a signal is no handler that is stopped.
Test(doctor, a_stopped_vm_is_no_trouble)
{
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_serve(orphan_world, NULL);
    orphan_start_vmm(&plain);
    cr_assert(process_stop(orphan_client.pid));
    cr_expect(doctor_says_nothing(NULL), "%s", orphan_output);
    cr_assert_eq(kill(orphan_client.pid, SIGCONT), 0);
    client_tell(&orphan_client, 'g');
    expect_served();
}

// --- what is not seen ---

// Runs the doctor as the first process of a PID namespace of its own, with its /proc or with ours.
static void run_inside(bool own_proc)
{
    char command[1024];
    int out[2];
    cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        child_setup();
        snprintf(command, sizeof(command), "exec unshare --pid --fork %s %s doctor",
                 own_proc ? "--mount-proc" : "", getenv("FAULTLINE_BIN"));
        dup2(out[1], STDOUT_FILENO);
        dup2(out[1], STDERR_FILENO);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    size_t used = 0;
    ssize_t got;
    while ((got = read(out[0], orphan_output + used, sizeof(orphan_output) - 1 - used)) > 0)
        used += (size_t)got;
    orphan_output[used] = '\0';
    close(out[0]);
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(WEXITSTATUS(status), 1, "%s", orphan_output);
}

Test(doctor, a_smaller_namespace_is_a_partial_view)
{
    orphan_make(MIXED, &plain);
    run_inside(true);
    cr_expect(strstr(orphan_output, "this is a partial view"), "%s", orphan_output);
    cr_expect(strstr(orphan_output, "NOT KNOWN: 0 userfaultfds"), "%s", orphan_output);
    run_inside(false);
    cr_expect(strstr(orphan_output, "another PID namespace"), "%s", orphan_output);
}
