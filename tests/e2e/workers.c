// SPDX-License-Identifier: Apache-2.0
//
// The workers of an engine one by one: VMs are spread over them, and what one of them does not do
// is seen though all the rest of the engine is well.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(workers, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

enum { BYTES = 4 << 20, VMS = 6, WORKERS = 3, FDS = 64 };

static struct world *world;

// Touches a page, says so, and touches all when it is told to.
static int touch(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 1, VMM_RANDOM, false);
    return 0;
}

static void begin(const char *const *extra, struct client *clients, unsigned count)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, extra);
    for (unsigned i = 0; i < count; i++) {
        client_start(&clients[i], touch, NULL);
        cr_assert(client_says(&clients[i], 't'));
    }
}

static void finish(struct client *clients, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        client_tell(&clients[i], 'g');
    for (unsigned i = 0; i < count; i++)
        if (client_wait(&clients[i]) != 0) {
            server_print_log(&world->server);
            cr_assert_fail("a VM did not end well");
        }
    world_stop(world);
}

// --- what the engine has open ---

// The engine's descriptors of this kind ("eventpoll", "userfaultfd"); how many.
static unsigned descriptors(const char *kind, int fds[FDS])
{
    char path[64];
    char wanted[64];
    char target[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)server_engine(&world->server));
    snprintf(wanted, sizeof(wanted), "anon_inode:[%s]", kind);
    DIR *directory = opendir(path);
    cr_assert_not_null(directory);
    const struct dirent *entry;
    while ((entry = readdir(directory)) && count < FDS) {
        ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
        if (strcmp(target, wanted) == 0)
            fds[count++] = (int)strtol(entry->d_name, NULL, 10);
    }
    closedir(directory);
    return count;
}

struct open_files {
    const char *kind;
    unsigned count;
    int fd[FDS];
};

static bool has_so_many(void *arg)
{
    struct open_files *files = arg;
    return descriptors(files->kind, files->fd) == files->count;
}

// A handshake is looked at before it is taken, and its userfaultfd comes with both: a thread closes
// the second one a moment later.
static void await_descriptors(const char *kind, unsigned count, int fds[FDS])
{
    struct open_files files = {kind, count, {0}};
    cr_assert(wait_until(has_so_many, &files), "the engine does not come to have %u %ss", count,
              kind);
    memcpy(fds, files.fd, sizeof(files.fd));
}

static bool watches(int epoll, int fd)
{
    char path[64];
    char line[256];
    int watched = -1;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)server_engine(&world->server), epoll);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found = sscanf(line, "tfd: %d", &watched) == 1 && watched == fd;
    if (file)
        fclose(file);
    return found;
}

static unsigned count_watched(int epoll, const int *fds, unsigned count)
{
    unsigned watched = 0;
    for (unsigned i = 0; i < count; i++)
        watched += watches(epoll, fds[i]);
    return watched;
}

// Each worker has an epoll of its own, which watches the userfaultfds of its VMs.
Test(workers, have_the_vms_in_equal_parts)
{
    static const char *const three[] = {"--workers", "3", NULL};
    struct client clients[VMS];
    int epolls[FDS];
    int uffds[FDS];
    unsigned watching = 0;
    begin(three, clients, VMS);
    await_descriptors("userfaultfd", VMS, uffds);
    unsigned count = descriptors("eventpoll", epolls);
    for (unsigned i = 0; i < count; i++) {
        unsigned watched = count_watched(epolls[i], uffds, VMS);
        cr_expect(watched == 0 || watched == VMS / WORKERS, "a worker has %u of %d VMs", watched,
                  VMS);
        watching += watched > 0;
    }
    cr_expect_eq(watching, WORKERS);
    finish(clients, VMS);
}

// --- what is not done ---

// In a process of its own: a descriptor that is watched is known by its number, too.
static void forget(pid_t engine, int epoll, int uffd)
{
    enum { OURS = 512 };
    int pidfd = (int)syscall(SYS_pidfd_open, engine, 0);
    int epoll_here = (int)syscall(SYS_pidfd_getfd, pidfd, epoll, 0);
    int uffd_here = (int)syscall(SYS_pidfd_getfd, pidfd, uffd, 0);
    if (epoll_here < 0 || uffd_here < 0 || dup2(epoll_here, OURS) < 0 ||
        (uffd_here != uffd && dup2(uffd_here, uffd) < 0))
        _exit(1);
    _exit(epoll_ctl(OURS, EPOLL_CTL_DEL, uffd, NULL) == 0 ? 0 : 2);
}

static void have_engine_forget_its_vm(void)
{
    int epolls[FDS];
    int uffd[FDS];
    int status = -1;
    unsigned count = descriptors("eventpoll", epolls);
    await_descriptors("userfaultfd", 1, uffd);
    unsigned i = 0;
    while (i < count && !watches(epolls[i], uffd[0]))
        i++;
    cr_assert_lt(i, count);
    pid_t child = fork();
    if (child == 0)
        forget(server_engine(&world->server), epolls[i], uffd[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
}

// All its threads answer, but faults of a VM are never read, as epoll does not tell of them. The
// keeper sees them.
Test(workers, one_that_does_not_read_the_faults_of_a_vm_is_replaced)
{
    static const char *const soon[] = {"--hang-timeout", "1000", "--workers", "2", NULL};
    struct client client;
    begin(soon, &client, 1);
    have_engine_forget_its_vm();
    world->server.deaths = 1;
    finish(&client, 1);
    cr_assert_eq(server_logs(&world->server, "event=engine_hangs", 1), 1);
    cr_assert_eq(
        server_count_log(&world->server, "vm=1 reason=\"it does not read the faults of a VM\""), 1);
}

struct thread {
    pid_t pid;
    pid_t tid;
};

// Within a call for its VM it would be taken for one that the kernel holds up.
static bool is_idle(void *arg)
{
    const struct thread *thread = arg;
    char path[64];
    char place[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/task/%d/wchan", (int)thread->pid, (int)thread->tid);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(place, sizeof(place), file);
    if (file)
        fclose(file);
    return read && strstr(place, "ep") == place + (strncmp(place, "do_", 3) == 0 ? 3 : 0);
}

// One worker stands still and the others, and all the rest, do not.
Test(workers, one_that_stands_still_costs_no_vm_a_byte)
{
    static const char *const soon[] = {"--hang-timeout", "1000", "--workers", "2", NULL};
    struct client clients[2];
    int status = 0;
    begin(soon, clients, 2);
    pid_t worker = server_engine_thread(&world->server, "fl-worker-1");
    cr_assert_gt(worker, 0);
    struct thread thread = {server_engine(&world->server), worker};
    cr_assert(wait_until(is_idle, &thread));
    cr_assert_eq(ptrace(PTRACE_SEIZE, worker, NULL, NULL), 0, "%s", strerror(errno));
    cr_assert_eq(ptrace(PTRACE_INTERRUPT, worker, NULL, NULL), 0, "%s", strerror(errno));
    cr_assert_eq(waitpid(worker, &status, __WALL), worker);
    cr_assert(WIFSTOPPED(status));
    world->server.deaths = 1;
    finish(clients, 2);
    cr_assert_eq(server_logs(&world->server, "event=engine_hangs", 1), 1);
}
