// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The pipe's one writing end is the command's: the guard reads its end when
// the command has ended, however it did, or a byte if nothing is to be done. Firecracker handles
// one request at a time, so that the answer to "resume" comes after what it was doing before. Only
// an order to pause that the command gave in the moment of its death may be overtaken: then the
// guard looks for a while whether the VM stays resumed.
#include "tools/verbs/checkpoint_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/verbs/firecracker_api.h"

enum { RESUME_MS = 60000, RESUMES = 10, LOOK_MS = 2000, LOOKS = 20, LOOK_EVERY_MS = 50 };

int guard_open_fifo(int dir)
{
    return openat(dir, GUARD_FIFO, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

void guard_remove(int base, const char *name, int dir)
{
    unlinkat(dir, GUARD_FIFO, 0);
    unlinkat(dir, GUARD_VMSTATE, 0);
    unlinkat(base, name, AT_REMOVEDIR);
}

// --- the guard's process ---

static void resume_for_good(const char *api, const struct guard_orders *orders)
{
    struct firecracker_info info;
    unsigned tries = 0;
    while (firecracker_resume(api, RESUME_MS, NULL) == -ETIMEDOUT && ++tries < RESUMES) {
    }
    for (unsigned i = 0; i < LOOKS && atomic_load(&orders->pausing); i++) {
        poll(NULL, 0, LOOK_EVERY_MS);
        if (firecracker_describe(api, LOOK_MS, &info, NULL) == 0 &&
            info.state == FIRECRACKER_PAUSED)
            firecracker_resume(api, RESUME_MS, NULL);
    }
}

static void stand_in(const char *api, int base, const char *name, const struct guard_orders *orders)
{
    int dir = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir >= 0)
        guard_open_fifo(dir); // until this process ends
    if (atomic_load(&orders->paused))
        resume_for_good(api, orders);
    if (dir >= 0)
        guard_remove(base, name, dir);
}

// Keeps nothing of the command's open: not the terminal, no lock of the store.
static void shed_descriptors(int *line, int *base)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    *line = fcntl(*line, F_DUPFD_CLOEXEC, 16);
    *base = fcntl(*base, F_DUPFD_CLOEXEC, 16);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    int low = *line < *base ? *line : *base;
    int high = *line < *base ? *base : *line;
    close_range(STDERR_FILENO + 1, (unsigned)low - 1, 0);
    if (low + 1 < high)
        close_range((unsigned)low + 1, (unsigned)high - 1, 0);
    close_range((unsigned)high + 1, UINT32_MAX, 0);
}

_Noreturn static void guard_main(const char *api, int line, int base, const char *name,
                                 const struct guard_orders *orders)
{
    static const int deaf[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    char byte;
    ssize_t got;
    setsid(); // a kill of the command's process group is none of the guard
    for (unsigned i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
        signal(deaf[i], SIG_IGN);
    shed_descriptors(&line, &base);
    while ((got = read(line, &byte, 1)) < 0 && errno == EINTR) {
    }
    if (got != 1)
        stand_in(api, base, name, orders);
    _exit(0);
}

// --- the command's ---

int guard_start(const char *api, int base, const char *name, struct guard *ret_guard)
{
    int ends[2];
    struct guard_orders *orders =
        mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (orders == MAP_FAILED)
        return -errno;
    int error = pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
    if (error) {
        munmap(orders, sizeof(*orders));
        return error;
    }
    pid_t pid = fork();
    if (pid == 0)
        guard_main(api, ends[0], base, name, orders);
    error = pid < 0 ? -errno : 0;
    close(ends[0]);
    if (error) {
        close(ends[1]);
        munmap(orders, sizeof(*orders));
        return error;
    }
    *ret_guard = (struct guard){.pid = pid, .line = ends[1], .orders = orders};
    return 0;
}

void guard_dismiss(struct guard *guard)
{
    if (guard->pid <= 0)
        return;
    ssize_t sent = write(guard->line, "d", 1);
    (void)sent; // it fails only if the guard is gone
    close(guard->line);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    munmap(guard->orders, sizeof(*guard->orders));
    *guard = (struct guard){0};
}

void guard_leave(struct guard *guard)
{
    if (guard->pid <= 0)
        return;
    close(guard->line);
    munmap(guard->orders, sizeof(*guard->orders));
    *guard = (struct guard){0};
}
