// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The pipe's one writing end is the command's: the process reads its end when
// the command has ended, however it did, or a byte if nothing is to be done.
#include "tools/verbs/left_behind.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE = 16, KEPT = 17 }; // descriptors in that process

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
    char byte;
    ssize_t got;
    setsid();
    for (unsigned i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
        signal(deaf[i], SIG_IGN);
    shed_descriptors(line, work->keep);
    while ((got = read(LINE, &byte, 1)) < 0 && errno == EINTR) {
    }
    if (got != 1)
        work->stand_in(work->arg, work->keep >= 0 ? KEPT : -1);
    _exit(0);
}

int left_behind_start(const struct left_behind_work *work, struct left_behind *ret_process)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
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
    return 0;
}

void left_behind_dismiss(struct left_behind *process)
{
    if (process->pid <= 0)
        return;
    ssize_t sent = write(process->line, "d", 1);
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
