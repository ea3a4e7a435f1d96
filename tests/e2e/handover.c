// SPDX-License-Identifier: Apache-2.0
//
// What must not be lost on the way from one engine or keeper to the next, at moments that are rare.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/stop.h"
#include "tests/support/world.h"

enum { BYTES = 4 << 20, MANY = 12, FEW_DESCRIPTORS = 48 };

TestSuite(handover, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;

// Touches one page, says so, and all when it is told to. `arg`: it has closed its own userfaultfd,
// so that the servers hold the last references.
static int obedient(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, 4096, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    if (arg)
        close(vmm.uffd);
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

// Connects and sends half of its handshake; the rest when it is told to.
static int hesitant(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char text[VMM_TEXT];
    (void)arg;
    vmm_map(&vmm, &world->memory, 4096, 2, VMM_1_12);
    vmm.shared = shared;
    size_t length = vmm_handshake_text(&vmm, text);
    vmm.socket = vmm_connect(world->socket);
    vmm_send(vmm.socket, text, length / 2, &vmm.uffd, 1);
    tell_test(channel, 'h');
    await_test(channel, 'g');
    vmm_send(vmm.socket, text + length / 2, length - length / 2, NULL, 0);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

static void start_vm(struct client *client, void *arg)
{
    client_start(client, obedient, arg);
    cr_assert(client_says(client, 't'));
}

static void touches_all(struct client *client)
{
    client_tell(client, 'g');
    int status = client_wait(client);
    if (status != 0)
        server_print_log(&world->server);
    cr_assert_eq(status, 0);
}

// SIGKILL to the engine, and the next one serves.
static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

// A VM says by number which connection it came from: that number must not be another's.
Test(handover, of_a_handshake_beside_older_vms)
{
    struct client vm[2];
    struct client late;
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    start_vm(&vm[0], NULL);
    start_vm(&vm[1], NULL);
    kill_engine();
    client_start(&late, hesitant, NULL);
    cr_assert(client_says(&late, 'h'));
    kill_engine();
    touches_all(&late);
    touches_all(&vm[0]);
    touches_all(&vm[1]);
    world_stop(world);
}

// --- a keeper that cannot have all of it ---

// `faultline serve` with few descriptors, to its end; its output.
static const char *serve_poorly(void)
{
    static char output[1 << 14];
    const struct rlimit few = {FEW_DESCRIPTORS, FEW_DESCRIPTORS};
    const char *path = temp_path(&world->temp, "poor.log");
    int log = open(path, O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
    cr_assert_geq(log, 0);
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        dup2(log, STDERR_FILENO);
        if (setrlimit(RLIMIT_NOFILE, &few) == 0)
            execl(getenv("FAULTLINE_BIN"), "faultline", "serve", "--store", world->store,
                  "--sockets", temp_path(&world->temp, "sockets"), "--control",
                  temp_path(&world->temp, "control.sock"), NULL);
        _exit(127);
    }
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    if (poll(&ended, 1, TEST_DEADLINE_MS / 3) != 1)
        kill(pid, SIGKILL);
    close(ended.fd);
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    output[pread(log, output, sizeof(output) - 1, 0)] = '\0';
    close(log);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s", output);
    return output;
}

// A new keeper that may not have as many descriptors as the engine has must leave it alone: a part
// of its VMs would be served twice.
Test(handover, to_a_keeper_that_cannot_hold_all)
{
    struct client vm[MANY];
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    pid_t engine = server_engine(&world->server);
    for (unsigned i = 0; i < MANY; i++)
        start_vm(&vm[i], NULL);
    server_kill_keeper(&world->server);
    cr_assert(server_wait_log(&world->server, "event=keeper_lost", 1));
    const char *output = serve_poorly();
    cr_assert_not_null(strstr(output, "cannot be taken over"), "%s", output);
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    cr_assert_eq(server_engine(&world->server), engine);
    for (unsigned i = 0; i < MANY; i++)
        touches_all(&vm[i]);
    world_stop(world);
}

// --- a channel that is full ---

enum { MESSAGE_BYTES = 49, AROUND = 8 };

// How many short messages a channel holds that nobody reads from.
static unsigned channel_room(void)
{
    int pair[2];
    char bytes[MESSAGE_BYTES] = {0};
    unsigned count = 0;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    while (send(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        count++;
    close(pair[0]);
    close(pair[1]);
    return count;
}

// The pid in the last such line.
static pid_t last_standby(void)
{
    char line[2048];
    int pid = 0;
    FILE *file = fopen(world->server.log, "re");
    while (file && fgets(line, sizeof(line), file)) {
        const char *at = strstr(line, "event=engine_ready pid=");
        if (at)
            sscanf(at, "event=engine_ready pid=%d", &pid); // NOLINT(cert-err34-c)
    }
    if (file)
        fclose(file);
    return pid;
}

// As in /proc/PID/stat; 0 if it is gone.
static char process_state(pid_t pid)
{
    char path[64];
    char line[128] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, sizeof(line), file);
    if (file)
        fclose(file);
    const char *end = strrchr(line, ')');
    return read && end ? end[2] : '\0';
}

// The standby is slow, and what it is sent fills the channel: with that many records at some of
// these numbers to the last byte.
Test(handover, of_as_much_as_the_channel_holds)
{
    static const char *const patient[] = {"--handshake-timeout", "600000", NULL};
    unsigned room = channel_room();
    int *fd = calloc(room + AROUND, sizeof(*fd));
    cr_assert_not_null(fd);
    world = world_make(MIXED, BYTES);
    world_serve(world, patient);
    for (unsigned i = 0; i < room + AROUND / 2; i++) {
        fd[i] = vmm_connect(world->socket);
        if (i + AROUND < room)
            continue;
        unsigned ready = server_count_log(&world->server, "event=ready pid=");
        cr_assert(server_wait_log(&world->server, "event=engine_ready pid=", ready));
        pid_t standby = last_standby();
        cr_assert(process_stop(standby));
        world->server.deaths++;
        cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
        cr_assert(server_wait_log(&world->server, "event=engine_died", world->server.deaths));
        cr_assert_eq(kill(standby, SIGCONT), 0);
        cr_assert(server_wait_log(&world->server, "event=ready pid=", ready + 1));
        cr_assert_eq(server_engine(&world->server), standby, "it was not told to serve");
    }
    for (unsigned i = 0; i < room + AROUND / 2; i++)
        close(fd[i]);
    free(fd);
    world_stop(world);
}

// --- what another version wrote ---

enum { STATE_VERSION_AT = 8, LISTENER_VERSION_AT = 8, OTHER_VERSION = 99 };

// The process's first memfd of that name, open.
static int open_memfd(pid_t pid, const char *name)
{
    char path[64];
    char target[128];
    char wanted[128];
    snprintf(wanted, sizeof(wanted), "/memfd:%s (deleted)", name);
    for (int fd = 0; fd < 512; fd++) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
        if (strcmp(target, wanted) == 0)
            return open(path, O_RDWR | O_CLOEXEC);
    }
    return -1;
}

// Returns the version before.
static uint32_t set_version(int fd, off_t at, uint32_t version)
{
    uint32_t before = 0;
    cr_assert_eq(pread(fd, &before, sizeof(before), at), (ssize_t)sizeof(before));
    cr_assert_eq(pwrite(fd, &version, sizeof(version), at), (ssize_t)sizeof(version));
    return before;
}

static void leave_to_the_other(const char *memfd, off_t at)
{
    struct client vm[2];
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    start_vm(&vm[0], NULL);
    start_vm(&vm[1], &vm);
    pid_t engine = server_engine(&world->server);
    int fd = open_memfd(world->server.pid, memfd); // the keeper has all of them
    cr_assert_geq(fd, 0);
    uint32_t version = set_version(fd, at, OTHER_VERSION);
    cr_assert_eq(kill(engine, SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "of another version of faultline", 2));
    // Now it is an engine of the right version that comes next.
    set_version(fd, at, version);
    close(fd);
    cr_assert(server_wait_log(&world->server, "event=ready pid=", 2));
    // Each that was of another version has died, and the first; the keeper may say so later.
    unsigned others = server_count_log(&world->server, "of another version of faultline");
    cr_assert(server_wait_log(&world->server, "event=engine_died", others + 1));
    world->server.deaths = server_count_log(&world->server, "event=engine_died");
    touches_all(&vm[0]);
    touches_all(&vm[1]);
    struct client late;
    start_vm(&late, NULL);
    touches_all(&late);
    world_stop(world);
}

Test(handover, of_a_vm_to_an_engine_of_another_version)
{
    leave_to_the_other("faultline-vm-1", STATE_VERSION_AT);
}

Test(handover, of_a_listener_to_an_engine_of_another_version)
{
    leave_to_the_other("faultline-listener", LISTENER_VERSION_AT);
}

// Its bytes make no sense to anybody: its faults are poisoned, in the place of its record.
static int expects_poison(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, 4096, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    vmm_catch_sigbus();
    close(vmm.uffd);
    for (uint32_t page = 10; page < 13; page++) {
        tell_test(channel, 't');
        await_test(channel, 'g');
        if (!vmm_poisoned(vmm_page(&vmm, page)))
            return 1;
    }
    return 0;
}

Test(handover, of_a_vm_whose_state_is_damaged)
{
    struct client vm[2];
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    client_start(&vm[0], expects_poison, NULL);
    cr_assert(client_says(&vm[0], 't'));
    start_vm(&vm[1], &vm);
    int fd = open_memfd(server_engine(&world->server), "faultline-vm-1");
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, "damaged.", 8, 0), 8);
    close(fd);
    for (unsigned i = 0; i < 2; i++) {
        kill_engine();
        client_tell(&vm[0], 'g');
        cr_assert(client_says(&vm[0], 't'));
    }
    client_tell(&vm[0], 'g');
    cr_assert_eq(client_wait(&vm[0]), 0);
    touches_all(&vm[1]);
    world_stop(world);
}

// --- nobody but the keeper has it ---

static bool keeper_sleeps(void *arg)
{
    (void)arg;
    return process_state(world->server.pid) == 'S';
}

// The engine is dead, and the standby has not yet looked at what the keeper has sent it.
static pid_t stop_between_engines(void)
{
    cr_assert(server_wait_log(&world->server, "event=engine_ready pid=", 1));
    pid_t standby = last_standby();
    cr_assert(process_stop(standby));
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "event=engine_died", 1));
    cr_assert(wait_until(keeper_sleeps, NULL));
    return standby;
}

// A new keeper finds the engine, and has all of it.
static void next_keeper(pid_t engine, struct client *client)
{
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    cr_assert_eq(server_engine(&world->server), engine);
    kill_engine();
    touches_all(client);
    world_stop(world);
}

Test(handover, of_a_keeper_that_leaves_between_engines)
{
    struct client vm;
    int status = -1;
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    start_vm(&vm, &vm);
    pid_t standby = stop_between_engines();
    cr_assert_eq(kill(world->server.pid, SIGUSR1), 0);
    cr_assert(wait_until(keeper_sleeps, NULL));
    cr_assert_eq(kill(standby, SIGCONT), 0);
    cr_assert_eq(waitpid(world->server.pid, &status, 0), world->server.pid);
    cr_assert_eq(status, 0);
    cr_assert_eq(server_logs(&world->server, "event=ready pid=", 2), 2);
    next_keeper(standby, &vm);
}

// What it could still send before it died is all that is left.
static void die_between_engines(unsigned connections)
{
    static const char *const patient[] = {"--handshake-timeout", "600000", NULL};
    struct client vm;
    int *fd = calloc(connections + 1, sizeof(*fd));
    cr_assert_not_null(fd);
    world = world_make(MIXED, BYTES);
    world_serve(world, patient);
    start_vm(&vm, &vm);
    for (unsigned i = 0; i < connections; i++)
        fd[i] = vmm_connect(world->socket);
    world_status(world, "", "vms"); // its answer comes after all of them were accepted
    pid_t standby = stop_between_engines();
    server_kill_keeper(&world->server);
    cr_assert_eq(kill(standby, SIGCONT), 0);
    cr_assert(server_wait_log(&world->server, "event=ready pid=", 2));
    for (unsigned i = 0; i < connections; i++)
        close(fd[i]);
    free(fd);
    next_keeper(standby, &vm);
}

Test(handover, of_a_keeper_that_dies_between_engines)
{
    die_between_engines(0);
}

Test(handover, of_a_keeper_that_dies_while_it_hands_over)
{
    die_between_engines(channel_room() + AROUND);
}
