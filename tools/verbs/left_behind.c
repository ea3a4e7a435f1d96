// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The two have a pair of sockets, and one end is the command's alone: the
// process reads the end when the command has ended, however it did, or a byte if nothing is to be
// done. Before that it says that it is ready: what kills the command's process group may come at
// any time, and must not find it still there.
#include "tools/verbs/left_behind.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/crash_point.h"

enum { LINE = 16, KEPT = 17 }; // descriptors in that process
enum { HELD_NS = 1000000 };

// Keeps nothing else of the command's open: not the terminal, no lock of the store.
static void shed_descriptors(int line, int keep)
{
    // First out of the way: neither may be at the other's place.
    int high_line = fcntl(line, F_DUPFD_CLOEXEC, KEPT + 1);
    int high_keep = keep >= 0 ? fcntl(keep, F_DUPFD_CLOEXEC, KEPT + 1) : -1;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    close_range(STDERR_FILENO + 1, LINE - 1, 0);
    dup2(high_line, LINE);
    if (high_keep >= 0)
        dup2(high_keep, KEPT);
    close_range(high_keep >= 0 ? KEPT + 1 : LINE + 1, UINT32_MAX, 0);
}

_Noreturn static void be_left_behind(const struct left_behind_work *work, int line)
{
    static const int deaf[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    char byte = 'r';
    ssize_t got;
    while (FL_HELD("left_behind"))
        nanosleep(&(struct timespec){.tv_nsec = HELD_NS}, NULL);
    setsid();
    for (unsigned i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
        signal(deaf[i], SIG_IGN);
    shed_descriptors(line, work->keep);
    got = send(LINE, &byte, 1, MSG_NOSIGNAL); // who has ended meanwhile is seen below
    while ((got = read(LINE, &byte, 1)) < 0 && errno == EINTR) {
    }
    if (got != 1)
        work->stand_in(work->arg, work->keep >= 0 ? KEPT : -1);
    _exit(0);
}

// False: it was killed before.
static bool is_ready(int line)
{
    char byte;
    ssize_t got;
    while ((got = read(line, &byte, 1)) < 0 && errno == EINTR) {
    }
    return got == 1;
}

int left_behind_start(const struct left_behind_work *work, struct left_behind *ret_process)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        be_left_behind(work, ends[0]);
    int error = pid < 0 ? -errno : 0;
    close(ends[0]);
    if (error) {
        close(ends[1]);
        return error;
    }
    *ret_process = (struct left_behind){.pid = pid, .line = ends[1]};
    if (is_ready(ends[1]))
        return 0;
    left_behind_dismiss(ret_process);
    return -ESRCH;
}

void left_behind_dismiss(struct left_behind *process)
{
    if (process->pid <= 0)
        return;
    ssize_t sent = send(process->line, "d", 1, MSG_NOSIGNAL);
    (void)sent; // it fails only if the process is gone
    close(process->line);
    while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    *process = (struct left_behind){0};
}

void left_behind_leave(struct left_behind *process)
{
    if (process->pid > 0)
        close(process->line);
    *process = (struct left_behind){0};
}
