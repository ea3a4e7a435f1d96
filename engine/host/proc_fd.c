// SPDX-License-Identifier: Apache-2.0
#include "engine/host/proc_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/host/procfs.h"

enum { PATH = 96, TEXT = 1024 };

// include/uapi/linux/pidfd.h of Linux 6.9: a pidfd of a thread that is not its process's first.
enum { THREAD_PIDFD = O_EXCL };

struct visit {
    int (*fn)(void *arg, const struct fl_proc_fd *fd);
    void *arg;
    pid_t pid;
    pid_t tid;
    bool complete;
};

static int visit_fd(void *arg, int fd)
{
    struct visit *visit = arg;
    char path[PATH];
    char target[TEXT];
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", (int)visit->pid, (int)visit->tid, fd);
    if (fl_proc_link(path, target, sizeof(target)) != 0)
        return 0;
    struct fl_proc_fd found = {.pid = visit->pid, .tid = visit->tid, .fd = fd, .target = target};
    return visit->fn(visit->arg, &found);
}

static int visit_process(struct visit *visit, pid_t pid)
{
    char path[PATH];
    visit->pid = visit->tid = pid;
    fl_proc_live_task(pid, &visit->tid);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fd", (int)pid, (int)visit->tid);
    return fl_proc_each(path, visit_fd, visit);
}

int fl_proc_each_fd(pid_t pid, int (*fn)(void *arg, const struct fl_proc_fd *fd), void *arg)
{
    struct visit visit = {.fn = fn, .arg = arg};
    return visit_process(&visit, pid);
}

static int visit_any(void *arg, int pid)
{
    struct visit *visit = arg;
    int result = visit_process(visit, pid);
    if (result == -EACCES || result == -EPERM)
        visit->complete = false;
    if (result == -EACCES || result == -EPERM || result == -ENOENT || result == -ESRCH)
        return 0;
    return result;
}

int fl_proc_each_fd_of_all(int (*fn)(void *arg, const struct fl_proc_fd *fd), void *arg,
                           bool *ret_complete)
{
    struct visit visit = {.fn = fn, .arg = arg, .complete = true};
    int result = fl_proc_each("/proc", visit_any, &visit);
    *ret_complete = visit.complete;
    return result;
}

// "API: API:FEATURES:KNOWN" in hexadecimal; the top bit of FEATURES is the kernel's own mark
// "UFFDIO_API was done".
bool fl_proc_uffd(const struct fl_proc_fd *fd, struct fl_proc_uffd *ret_uffd)
{
    char path[PATH];
    char text[TEXT];
    unsigned long long features = 0;
    struct fl_proc_uffd found = {0};
    if (strcmp(fd->target, FL_PROC_UFFD_TARGET) != 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fdinfo/%d", (int)fd->pid, (int)fd->tid, fd->fd);
    if (fl_proc_read(path, text, sizeof(text)) <= 0 ||
        !fl_proc_number(text, "ino:", &found.inode) ||
        !fl_proc_number(text, "pending:", &found.pending) ||
        !fl_proc_number(text, "total:", &found.total))
        return false;
    const char *api = strstr(text, "API:");
    if (api && sscanf(api, "API: %*x:%llx", &features) == 1) { // NOLINT(cert-err34-c)
        found.features = features & ~(1ULL << 31);
        found.ready = features >> 31 & 1;
    }
    *ret_uffd = found;
    return true;
}

int fl_proc_take_fd(pid_t pid, pid_t tid, int fd)
{
    int pidfd = (int)syscall(SYS_pidfd_open, tid, tid == pid ? 0 : THREAD_PIDFD);
    if (pidfd < 0)
        return -errno;
    int taken = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    int error = -errno;
    close(pidfd);
    return taken < 0 ? error : taken;
}
