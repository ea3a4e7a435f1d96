// SPDX-License-Identifier: Apache-2.0
//
// The notify peer's service: its start and its end.
#include "tests/support/notify_peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/notify_peer_state.h"
#include "tests/support/server.h"

static void fail(const char *what)
{
    fprintf(stderr, "notify peer: %s: %s\n", what, strerror(errno));
    abort();
}

// --- the service's processes ---

static bool has_variable(const char *pid, const char *variable)
{
    static char text[1 << 20];
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t size = 0;
    for (ssize_t n; size < sizeof text && (n = read(fd, text + size, sizeof text - size)) > 0;)
        size += (size_t)n;
    close(fd);
    return memmem(text, size, variable, strlen(variable));
}

// SIGKILL to all processes of the service and waits for their end. How many there were.
static unsigned kill_all(const struct notify_peer *peer)
{
    unsigned killed = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc");
    if (!dir)
        fail("/proc");
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        int pidfd = (int)syscall(SYS_pidfd_open, atoi(entry->d_name), 0);
        if (pidfd < 0 || !has_variable(entry->d_name, peer->invocation)) {
            close(pidfd);
            continue;
        }
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0) {
            killed++;
            if (poll(&p, 1, TEST_DEADLINE_MS) != 1)
                fprintf(stderr, "notify peer: process %s does not die\n", entry->d_name);
        }
        close(pidfd);
    }
    closedir(dir);
    return killed;
}

// Waits for the main process's end, however it comes, and reaps it. False: not in time.
static bool reap(struct notify_peer *peer, unsigned timeout_ms, int *ret_status)
{
    int pidfd = (int)syscall(SYS_pidfd_open, peer->pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    long end = test_now_ms() + timeout_ms;
    int n;
    do {
        long left = end - test_now_ms();
        n = poll(&p, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    close(pidfd);
    if (n != 1)
        return false;
    pthread_mutex_lock(&peer->lock);
    notify_peer_take(peer); // its last words are still its own
    if (waitpid(peer->pid, ret_status, 0) != peer->pid)
        fail("waitpid");
    peer->pid = 0;
    peer->ready = false;
    pthread_mutex_unlock(&peer->lock);
    return true;
}

// KillMode=mixed. Whether it ended in time; it has ended in any case.
static bool end_all(struct notify_peer *peer, int signal, unsigned timeout_ms, int *ret_status)
{
    bool in_time = true;
    if (peer->pid) {
        kill(peer->pid, signal);
        in_time = reap(peer, timeout_ms, ret_status);
        if (!in_time) {
            fprintf(stderr, "notify peer: signal %d did not end the service\n", signal);
            kill(peer->pid, SIGKILL);
            if (!reap(peer, TEST_DEADLINE_MS, ret_status))
                fail("the main process does not die");
        }
    }
    // A process that is just being forked may be missed once, not twice.
    while (kill_all(peer))
        ;
    return in_time;
}

// --- starting ---

enum { OWN_VARIABLES = 8 };

struct environment {
    char **all;
    char *names, fds[32], pid[32], watchdog_us[48], watchdog_pid[32];
};

static bool is_ours(const char *variable)
{
    static const char *const names[] = {
        "NOTIFY_SOCKET=", "LISTEN_PID=",    "LISTEN_FDS=",    "LISTEN_FDNAMES=",
        "WATCHDOG_PID=",  "WATCHDOG_USEC=", "INVOCATION_ID=", "FDSTORE="};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

// The pids in it are the child's to write. The lock is held.
static void make_environment(struct notify_peer *peer, struct environment *env)
{
    extern char **environ;
    const char *const *more = peer->options.environment;
    size_t room = OWN_VARIABLES + 1, count = 0;
    for (char **v = environ; *v; v++)
        room++;
    for (const char *const *v = more; v && *v; v++)
        room++;
    if (!(env->all = calloc(room, sizeof *env->all)))
        abort();
    for (char **v = environ; *v; v++)
        if (!is_ours(*v))
            env->all[count++] = *v;
    for (const char *const *v = more; v && *v; v++)
        env->all[count++] = (char *)(uintptr_t)*v;
    env->all[count++] = peer->address;
    env->all[count++] = peer->invocation;
    env->names = fd_store_names(&peer->store);
    snprintf(env->fds, sizeof env->fds, "LISTEN_FDS=%zu", peer->store.count);
    if (peer->store.count) {
        env->all[count++] = env->fds;
        env->all[count++] = env->names;
        env->all[count++] = env->pid;
    }
    snprintf(env->watchdog_us, sizeof env->watchdog_us, "WATCHDOG_USEC=%llu",
             1000ULL * peer->options.watchdog_ms);
    if (peer->options.watchdog_ms) {
        env->all[count++] = env->watchdog_us;
        env->all[count++] = env->watchdog_pid;
    }
}

static void execute(struct notify_peer *peer, struct environment *env)
{
    child_setup();
    snprintf(env->pid, sizeof env->pid, "LISTEN_PID=%d", (int)getpid());
    snprintf(env->watchdog_pid, sizeof env->watchdog_pid, "WATCHDOG_PID=%d", (int)getpid());
    if (peer->options.log) {
        int fd = open(peer->options.log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
            _exit(126);
    }
    fd_store_inherit(&peer->store);
    execve(peer->options.argv[0], (char *const *)(uintptr_t)peer->options.argv, env->all);
    _exit(127);
}

static bool ready_or_gone(struct notify_peer *peer, bool *ret_ready)
{
    siginfo_t info = {0};
    pthread_mutex_lock(&peer->lock);
    *ret_ready = peer->ready;
    waitid(P_PID, (id_t)peer->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    pthread_mutex_unlock(&peer->lock);
    return *ret_ready || info.si_pid;
}

bool notify_peer_start(struct notify_peer *peer, unsigned timeout_ms)
{
    struct environment env = {0};
    pthread_mutex_lock(&peer->lock); // no message is looked at before we know whose it is
    make_environment(peer, &env);
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid == 0)
        execute(peer, &env);
    peer->pid = pid;
    pthread_mutex_unlock(&peer->lock);
    free(env.all);
    free(env.names);

    bool ready = false;
    long end = test_now_ms() + timeout_ms;
    while (!ready_or_gone(peer, &ready) && test_now_ms() < end)
        poll(NULL, 0, 1);
    if (!ready)
        fprintf(stderr, "notify peer: the service did not get ready\n");
    return ready;
}

// --- the calls ---

int notify_peer_stop(struct notify_peer *peer, int signal, unsigned timeout_ms)
{
    int status = -1;
    end_all(peer, signal, timeout_ms, &status);
    pthread_mutex_lock(&peer->lock);
    fd_store_clear(&peer->store);
    pthread_mutex_unlock(&peer->lock);
    return status;
}

bool notify_peer_restart(struct notify_peer *peer, int signal, unsigned timeout_ms)
{
    int status;
    bool in_time = end_all(peer, signal, timeout_ms, &status);
    return notify_peer_start(peer, timeout_ms) && in_time;
}

bool notify_peer_restart_ended(struct notify_peer *peer, unsigned timeout_ms)
{
    int status;
    if (!reap(peer, timeout_ms, &status)) {
        fprintf(stderr, "notify peer: the service has not ended by itself\n");
        return false;
    }
    return notify_peer_restart(peer, SIGKILL, timeout_ms);
}

pid_t notify_peer_pid(struct notify_peer *peer)
{
    return peer->pid; // only this thread changes it
}

size_t notify_peer_stored(struct notify_peer *peer, const char *prefix)
{
    pthread_mutex_lock(&peer->lock);
    size_t count = fd_store_count(&peer->store, prefix);
    pthread_mutex_unlock(&peer->lock);
    return count;
}

int notify_peer_dup(struct notify_peer *peer, const char *name)
{
    pthread_mutex_lock(&peer->lock);
    int fd = fd_store_find(&peer->store, name);
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&peer->lock);
    return copy;
}

struct notify_peer_seen notify_peer_seen(struct notify_peer *peer)
{
    pthread_mutex_lock(&peer->lock);
    struct notify_peer_seen seen = peer->seen;
    pthread_mutex_unlock(&peer->lock);
    return seen;
}

// A socket at an abstract name of the kernel's choice: nothing is left of it.
static void open_socket(struct notify_peer *peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t size = sizeof address.sun_family;
    int on = 1;
    peer->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (peer->socket < 0 || bind(peer->socket, (struct sockaddr *)&address, size) < 0 ||
        setsockopt(peer->socket, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
        fail("notification socket");
    size = sizeof address;
    getsockname(peer->socket, (struct sockaddr *)&address, &size);
    int length = (int)(size - offsetof(struct sockaddr_un, sun_path) - 1);
    snprintf(peer->address, sizeof peer->address, "NOTIFY_SOCKET=@%.*s", length,
             address.sun_path + 1);
}

struct notify_peer *notify_peer_new(const struct notify_peer_options *options)
{
    struct notify_peer *peer = calloc(1, sizeof *peer);
    struct rlimit files;
    if (!peer)
        abort();
    peer->options = *options;
    // The store's descriptors are ours, and twice while a service starts.
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    open_socket(peer);
    peer->end = eventfd(0, EFD_CLOEXEC);
    snprintf(peer->invocation, sizeof peer->invocation, "INVOCATION_ID=%016lx%016lx",
             (unsigned long)getpid(),
             (unsigned long)(uintptr_t)peer ^ (unsigned long)test_now_ms());
    pthread_mutex_init(&peer->lock, NULL);
    if (pthread_create(&peer->thread, NULL, notify_peer_listen, peer) != 0)
        fail("thread");
    return peer;
}

void notify_peer_free(struct notify_peer *peer)
{
    if (!peer)
        return;
    notify_peer_stop(peer, SIGKILL, TEST_DEADLINE_MS);
    eventfd_write(peer->end, 1);
    pthread_join(peer->thread, NULL);
    close(peer->end);
    close(peer->socket);
    pthread_mutex_destroy(&peer->lock);
    free(peer);
}
