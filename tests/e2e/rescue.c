// SPDX-License-Identifier: Apache-2.0
//
// VMs that their fault handler has left behind: the doctor names them, `faultline rescue` has a
// server take them over, or ends their waiting, or refuses.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"
#include "tests/support/orphan.h"
#include "tests/support/stop.h"

enum { BYTES = ORPHAN_BYTES, THREADS = ORPHAN_THREADS };

TestSuite(rescue, .init = orphan_begin, .fini = orphan_end, .timeout = 240);

static const struct orphan_plan plain = {.page_bytes = PAGE, .regions = 1};

// --- the incident ---

// Firecracker's example handler does what this one does.
static void start_bare_handler(struct server *handler, const char *socket)
{
    snprintf(handler->log, sizeof(handler->log), "%s", temp_path(&orphan_world->temp, "bare.log"));
    handler->pid = fork();
    cr_assert_geq(handler->pid, 0);
    if (handler->pid == 0) {
        child_setup();
        int log = open(handler->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        dup2(log, STDERR_FILENO);
        execl(BARE_HANDLER, "bare_handler", socket, orphan_world->file, NULL);
        _exit(127);
    }
    cr_assert(server_wait_log(handler, "event=ready", 1));
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(rescue, a_vm_that_another_handler_abandoned)
{
    char socket[TEST_PATH];
    struct server handler = {0};
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    snprintf(socket, sizeof(socket), "%s", temp_path(&orphan_world->temp, "bare.sock"));
    start_bare_handler(&handler, socket);
    orphan_world->socket = socket;
    orphan_start_vmm(&plain);
    end(handler.pid);
    orphan_go_on(ORPHAN_THREADS);
    expect_doctor("faultline rescue --nothing-removed %d\n", (int)orphan_client.pid);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed");
    cr_expect(strstr(orphan_output, "serves it from image image"), "%s", orphan_output);
    expect_served();
}

Test(rescue, a_vm_with_huge_pages)
{
    need_huge_pages(ORPHAN_BYTES / HUGE);
    struct orphan_plan plan = {.page_bytes = HUGE, .regions = 1};
    orphan_make(MIXED, &plan);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// --- what must be known ---

// What Faultline kept of the VM, taken from its engine.
static int take_state(void *arg, const struct fl_proc_fd *fd)
{
    int *state = arg;
    if (strncmp(fd->target, "/memfd:faultline-vm-", 20) != 0)
        return 0;
    *state = fl_proc_take_fd(fd->pid, fd->tid, fd->fd);
    return 1;
}

Test(rescue, a_vm_whose_state_was_kept)
{
    int state = -1;
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .swapped = true, .removes = true};
    orphan_world = world_make(DISTINCT, ORPHAN_BYTES);
    world_serve(orphan_world, NULL);
    orphan_start_vmm(&plan);
    pid_t engine = server_engine(&orphan_world->server);
    cr_assert_eq(fl_proc_each_fd(engine, take_state, &state), 1);
    server_kill(&orphan_world->server);
    cr_assert_geq(state, 0);
    orphan_go_on(ORPHAN_THREADS);
    expect_doctor("faultline rescue --image image %d\n", (int)orphan_client.pid);
    cr_assert(server_serve(&orphan_world->server, &orphan_world->temp, orphan_world->store, NULL));
    EXPECT_REFUSED("another", "--image", "another");
    EXPECT_REFUSED("--regions cannot be used", "--regions", orphan_told->regions);
    // What is only said is not written down: the state stays as it was kept.
    EXPECT_REFUSED("still waits", "--image", "another", "--force", "--dry-run");
    EXPECT_DONE("--json");
    cr_expect(strstr(orphan_output, "\"removed_pages\": 1024"), "%s", orphan_output);
    close(state);
    expect_served();
}

static void make_template(void)
{
    const char *args[] = {"template", "--control", temp_path(&orphan_world->temp, "control.sock"),
                          "image", NULL};
    cr_assert_eq(faultline_run(orphan_output, sizeof(orphan_output), args), 0, "%s", orphan_output);
    snprintf(orphan_told->socket, sizeof(orphan_told->socket), "%s",
             temp_path(&orphan_world->temp, "sockets/image.template"));
}

// The template is lost with those who served it: what is missing comes privately, beside another
// template of the same image.
Test(rescue, a_vm_that_maps_a_template)
{
    int state = -1;
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .shared = true, .removes = true};
    orphan_world = world_make(DISTINCT, ORPHAN_BYTES);
    world_serve(orphan_world, NULL);
    make_template();
    orphan_start_vmm(&plan);
    pid_t engine = server_engine(&orphan_world->server);
    cr_assert_eq(fl_proc_each_fd(engine, take_state, &state), 1);
    server_kill(&orphan_world->server);
    cr_assert_geq(state, 0);
    orphan_go_on(ORPHAN_THREADS);
    expect_doctor("faultline rescue --image image %d\n", (int)orphan_client.pid);
    cr_assert(server_serve(&orphan_world->server, &orphan_world->temp, orphan_world->store, NULL));
    make_template();
    EXPECT_DONE("--json");
    cr_expect(strstr(orphan_output, "\"removed_pages\": 0"), "%s", orphan_output);
    close(state);
    expect_served();
}

// Nor can anybody know, without what was kept, that it has given nothing back.
Test(rescue, a_vm_that_maps_a_template_and_of_which_nothing_was_kept)
{
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 1, .shared = true};
    orphan_world = world_make(DISTINCT, ORPHAN_BYTES);
    world_serve(orphan_world, NULL);
    make_template();
    orphan_start_vmm(&plan);
    server_kill(&orphan_world->server);
    orphan_go_on(ORPHAN_THREADS);
    cr_assert(server_serve(&orphan_world->server, &orphan_world->temp, orphan_world->store, NULL));
    EXPECT_REFUSED("no state of it was kept", "--image", "image");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

Test(rescue, refusals)
{
    char bad[VMM_TEXT + 64];
    orphan_make(MIXED, &plain);
    EXPECT_REFUSED("which image", "--nothing-removed");
    EXPECT_REFUSED("cannot be compared", "--image", "nobody", "--nothing-removed");
    world_pack(orphan_world, orphan_world->file, "image");
    EXPECT_REFUSED("no server listens", "--image", "image", "--nothing-removed");
    cr_assert(server_serve(&orphan_world->server, &orphan_world->temp, orphan_world->store, NULL));
    EXPECT_REFUSED("still waits", "--image", "nobody", "--nothing-removed", "--force");
    EXPECT_REFUSED("is not a userfaultfd", "--image", "image", "--nothing-removed", "--fd", "0");
    EXPECT_REFUSED("are not valid", "--image", "image", "--regions", "[]");
    snprintf(bad, sizeof(bad),
             "[{\"base_host_virt_addr\":%llu,\"size\":%d,\"offset\":0,\"page_size\":4096}]",
             (unsigned long long)(uintptr_t)orphan_told->first, ORPHAN_BYTES / 2);
    EXPECT_REFUSED("leave out memory", "--image", "image", "--regions", bad);
    cr_expect_eq(orphan_rescue(getpid(), NULL), 1);
    cr_expect(strstr(orphan_output, "has no userfaultfd"), "%s", orphan_output);
    cr_expect_eq(RESCUE("--poison", "--kill"), 2);
    cr_expect_eq(RESCUE("7"), 2);
    cr_expect(client_waits(&orphan_client, ORPHAN_THREADS));
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

Test(rescue, a_handler_that_lives)
{
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_handler(orphan_world, NULL);
    orphan_start_vmm(&plain);
    server_pause(&orphan_world->server);
    client_tell(&orphan_client, 'g');
    cr_assert(client_waits(&orphan_client, ORPHAN_THREADS));
    expect_doctor("kill -CONT %d\n", (int)orphan_world->server.pid);
    EXPECT_REFUSED("is no orphan", "--image", "image", "--nothing-removed");
    EXPECT_REFUSED("is no orphan", "--kill");
    server_resume(&orphan_world->server);
    expect_served();
}

// Two may serve one VM, for a while: the frozen one has read what it will not answer.
Test(rescue, by_force)
{
    struct server handler;
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_handler(orphan_world, NULL);
    orphan_start_vmm(&plain);
    server_pause(&orphan_world->server);
    handler = orphan_world->server;
    orphan_go_on(ORPHAN_THREADS);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--force");
    expect_served();
    server_kill(&handler);
}

// Two of a kind in one server would not hear of what each other's reads took out.
Test(rescue, twice_by_force)
{
    orphan_make(MIXED, &plain);
    world_serve(orphan_world, NULL);
    cr_assert(process_stop(orphan_client.pid)); // it is not to end meanwhile
    EXPECT_DONE("--image", "image", "--nothing-removed");
    EXPECT_REFUSED("serves it already", "--image", "image", "--nothing-removed", "--force");
    cr_expect_eq(world_status(orphan_world, "", "vms"), 1);
    cr_assert_eq(kill(orphan_client.pid, SIGCONT), 0);
    expect_served();
}

Test(rescue, without_doing_it)
{
    orphan_make(MIXED, &plain);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--dry-run");
    cr_expect(strstr(orphan_output, "would be served from image image"), "%s", orphan_output);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--dry-run", "--json");
    cr_expect(strstr(orphan_output, "\"outcome\": \"nothing done\""), "%s", orphan_output);
    EXPECT_DONE("--kill", "--dry-run");
    cr_expect(client_waits(&orphan_client, ORPHAN_THREADS));
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// --- where nothing is known ---

static const struct orphan_plan condemned = {
    .page_bytes = PAGE, .regions = 1, .removes = true, .poisoned = true};

Test(rescue, poison_by_the_server)
{
    orphan_make(MIXED, &condemned);
    world_serve(orphan_world, NULL);
    EXPECT_REFUSED("corrupt the guest", "--image", "image");
    EXPECT_DONE("--poison");
    expect_served();
}

static bool has_ended(void *arg)
{
    siginfo_t info = {0};
    const struct server *server = arg;
    return waitid(P_PID, (id_t)server->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

// Without a server it is done by the command itself, until the VMM ends.
Test(rescue, poison_without_a_server)
{
    char number[16];
    struct server rescuer;
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .removes = true, .poisoned = true};
    orphan_make(MIXED, &plan);
    snprintf(number, sizeof(number), "%d", (int)orphan_client.pid);
    const char *args[] = {"rescue",   "--control", temp_path(&orphan_world->temp, "none.sock"),
                          "--poison", number,      NULL};
    server_spawn(&rescuer, &orphan_world->temp, "rescuer", args);
    cr_assert_eq(client_wait(&orphan_client), 0);
    cr_assert(wait_until(has_ended, &rescuer));
    cr_expect_eq(server_logs(&rescuer, "this process answers its faults", 1), 1);
    cr_expect_eq(server_stop(&rescuer), 0);
}

Test(rescue, kill_by_the_server)
{
    orphan_make(MIXED, &plain);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--kill");
    cr_assert_eq(client_wait(&orphan_client), 128 + SIGKILL);
    cr_assert(server_wait_log(&orphan_world->server, "event=detach vm=1 image=- ", 1));
    cr_assert_eq(server_logs(&orphan_world->server, "event=adopt vm=1 image=- ", 1), 1);
    cr_assert_eq(server_logs(&orphan_world->server, "event=kill vm=1 image=- ", 1), 1);
    world_stop(orphan_world);
}

Test(rescue, kill_without_a_server)
{
    orphan_make(MIXED, &plain);
    EXPECT_DONE("--kill");
    cr_expect(strstr(orphan_output, "its memory is gone"), "%s", orphan_output);
    cr_assert_eq(client_wait(&orphan_client), 128 + SIGKILL);
}

// --- processes that are on their way out ---

static pid_t forked(void (*run)(void *arg), void *arg)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        child_setup();
        run(arg);
        _exit(0);
    }
    return pid;
}

static void wait_for_ever(void *arg)
{
    (void)arg;
    for (;;)
        pause();
}

// Reads the VM's memory, from outside.
static void peek(void *arg)
{
    char byte;
    struct iovec ours = {.iov_base = &byte, .iov_len = 1};
    struct iovec theirs = {.iov_base = orphan_told->first + PAGE, .iov_len = 1};
    process_vm_readv(*(const pid_t *)arg, &ours, 1, &theirs, 1, 0);
}

static bool waits_for_page(void *arg)
{
    char path[64];
    char text[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/wchan", (int)*(const pid_t *)arg);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    return got > 0 && strcmp(text, "handle_userfault") == 0;
}

static int find_uffd(void *arg, const struct fl_proc_fd *fd)
{
    int *number = arg;
    if (strcmp(fd->target, "anon_inode:[userfaultfd]") != 0)
        return 0;
    *number = fd->fd;
    return 1;
}

// The VMM is dead, but not its memory, as somebody works in it: like a kernel worker, but one that
// tests can have. What answers him is a descriptor that a third one has.
Test(rescue, a_dead_vmm_in_whose_memory_somebody_waits)
{
    int fd = -1;
    char number[16];
    orphan_world = world_make(MIXED, ORPHAN_BYTES);
    world_handler(orphan_world, NULL);
    orphan_start_vmm(&plain);
    cr_assert_eq(fl_proc_each_fd(orphan_client.pid, find_uffd, &fd), 1);
    int taken = fl_proc_take_fd(orphan_client.pid, orphan_client.pid, fd);
    cr_assert_geq(taken, 0);
    pid_t holder = forked(wait_for_ever, NULL);
    close(taken);
    server_kill(&orphan_world->server);
    pid_t reader = forked(peek, &orphan_client.pid);
    cr_assert(wait_until(waits_for_page, &reader));
    siginfo_t info;
    kill(orphan_client.pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)orphan_client.pid, &info, WEXITED | WNOWAIT), 0);

    expect_doctor("none of the holders");
    EXPECT_REFUSED("is dying, and its descriptors are gone", "--kill");
    snprintf(number, sizeof(number), "--fd %d %d", taken, (int)holder);
    cr_expect(strstr(orphan_output, number), "%s", orphan_output);
    snprintf(number, sizeof(number), "%d", taken);
    EXPECT_REFUSED("is dying", "--poison", "--fd", number);
    cr_expect_eq(orphan_rescue(holder, NULL), 1);
    cr_expect(strstr(orphan_output, "no memory of"), "%s", orphan_output);
    const char *options[] = {"--poison", "--force", "--fd", number, NULL};
    cr_expect_eq(orphan_rescue(holder, options), 0, "%s", orphan_output);
    cr_expect_eq(waitpid(reader, NULL, 0), reader);
    end(holder);
}
