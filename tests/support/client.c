// SPDX-License-Identifier: Apache-2.0
#include "tests/support/client.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/server.h"

enum { CLIENT_FAILED = 99 };

static struct client_shared *own; // in a client
static char failure[sizeof(own->failure)];

_Noreturn void client_fail(const char *file, int line, const char *condition, const char *format,
                           ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "%s:%d: client %d: not (%s): %s\n", file, line, (int)getpid(), condition, text);
    if (own && !atomic_exchange(&own->failed, true))
        snprintf(own->failure, sizeof(own->failure), "%s:%d: not (%s): %s", file, line, condition,
                 text);
    _exit(CLIENT_FAILED);
}

static void need(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "test support: %s: %s\n", what, strerror(errno));
    abort();
}

void client_start(struct client *client, client_main *main, void *arg)
{
    int pair[2];
    need(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    client->shared = mmap(NULL, sizeof(*client->shared), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(client->shared != MAP_FAILED, "mmap");
    client->pid = fork();
    need(client->pid >= 0, "fork");
    if (client->pid == 0) {
        child_setup();
        close(pair[0]);
        own = client->shared;
        _exit(main(pair[1], client->shared, arg));
    }
    close(pair[1]);
    client->channel = pair[0];
}

static bool over(void *arg)
{
    const struct client *client = arg;
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)client->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

static int reap(struct client *client)
{
    int status = 0;
    while (waitpid(client->pid, &status, 0) < 0 && errno == EINTR) {
    }
    close(client->channel);
    snprintf(failure, sizeof(failure), "%s", client->shared->failure);
    munmap(client->shared, sizeof(*client->shared));
    *client = (struct client){0};
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int client_wait(struct client *client)
{
    if (client->pid <= 0)
        return -1;
    bool ended = wait_until(over, client);
    if (!ended) {
        fprintf(stderr, "client %d does not end: it hangs\n", (int)client->pid);
        kill(client->pid, SIGKILL);
    }
    int status = reap(client);
    return ended ? status : -1;
}

void client_kill(struct client *client)
{
    if (client->pid <= 0)
        return;
    kill(client->pid, SIGKILL);
    reap(client);
}

const char *client_failure(void)
{
    return failure;
}

bool client_says(struct client *client, char what)
{
    char said = 0;
    struct pollfd poll_fd = {.fd = client->channel, .events = POLLIN};
    if (poll(&poll_fd, 1, TEST_DEADLINE_MS) != 1) {
        fprintf(stderr, "client %d says nothing instead of '%c'\n", (int)client->pid, what);
        return false;
    }
    if (recv(client->channel, &said, 1, 0) == 1 && said == what)
        return true;
    fprintf(stderr, "client %d says '%c' (or has ended) instead of '%c'\n", (int)client->pid,
            said ? said : '-', what);
    return false;
}

void client_tell(struct client *client, char what)
{
    need(send(client->channel, &what, 1, MSG_NOSIGNAL) == 1, "the client has gone: send");
}

bool client_obeys(struct client *client, const char *orders)
{
    for (; *orders; orders++) {
        client_tell(client, *orders);
        if (!client_says(client, 'd'))
            return false;
    }
    return true;
}

struct goal {
    struct client *client;
    uint64_t pages;
};

static bool progressed(void *arg)
{
    const struct goal *goal = arg;
    return goal->client->shared->progress >= goal->pages || over(goal->client);
}

bool client_progressed(struct client *client, uint64_t pages)
{
    struct goal goal = {client, pages};
    wait_until(progressed, &goal);
    return client->shared->progress >= pages;
}

// Threads that sleep in the kernel's function of this name.
static unsigned count_sleepers(pid_t pid, const char *function)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    const struct dirent *task;
    while (tasks && (task = readdir(tasks))) {
        char place[64] = "";
        char name[sizeof(path) + sizeof(task->d_name) + 16];
        snprintf(name, sizeof(name), "%s/%s/wchan", path, task->d_name);
        FILE *file = fopen(name, "re");
        if (file && fgets(place, sizeof(place), file))
            count += strcmp(place, function) == 0;
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return count;
}

struct waiters {
    pid_t pid;
    unsigned threads;
};

static bool waiting(void *arg)
{
    const struct waiters *waiters = arg;
    return count_sleepers(waiters->pid, "handle_userfault") >= waiters->threads;
}

bool client_waits(struct client *client, unsigned threads)
{
    struct waiters waiters = {client->pid, threads};
    return wait_until(waiting, &waiters);
}

void tell_test(int channel, char what)
{
    if (send(channel, &what, 1, MSG_NOSIGNAL) != 1)
        _exit(CLIENT_FAILED);
}

char next_order(int channel)
{
    char said = 0;
    ssize_t got;
    while ((got = recv(channel, &said, 1, 0)) < 0 && errno == EINTR) {
    }
    if (got != 1)
        _exit(CLIENT_FAILED);
    return said;
}

void await_test(int channel, char what)
{
    if (next_order(channel) != what)
        _exit(CLIENT_FAILED);
}
