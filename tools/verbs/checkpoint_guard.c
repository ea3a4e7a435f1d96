// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation (left_behind.h says how it learns of the command's end). Firecracker handles
// one request at a time, so that the answer to "resume" comes after what it was doing before. Only
// an order to pause that the command gave in the moment of its death may be overtaken: then the
// guard looks for a while whether the VM stays resumed.
#include "tools/verbs/checkpoint_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
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

// What the guard knows.
struct post {
    const char *api;
    const char *name;
    const struct guard_orders *orders;
};

static void stand_in(const void *arg, int base)
{
    const struct post *post = arg;
    int dir = openat(base, post->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir >= 0)
        guard_open_fifo(dir); // until this process ends
    if (atomic_load(&post->orders->paused))
        resume_for_good(post->api, post->orders);
    if (dir >= 0)
        guard_remove(base, post->name, dir);
}

// --- the command's ---

int guard_start(const char *api, int base, const char *name, struct guard *ret_guard)
{
    struct guard_orders *orders =
        mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (orders == MAP_FAILED)
        return -errno;
    struct post post = {.api = api, .name = name, .orders = orders};
    struct left_behind_work work = {.stand_in = stand_in, .arg = &post, .keep = base};
    int error = left_behind_start(&work, &ret_guard->process);
    if (error)
        munmap(orders, sizeof(*orders));
    else
        ret_guard->orders = orders;
    return error;
}

static void forget(struct guard *guard)
{
    if (guard->orders)
        munmap(guard->orders, sizeof(*guard->orders));
    guard->orders = NULL;
}

void guard_dismiss(struct guard *guard)
{
    left_behind_dismiss(&guard->process);
    forget(guard);
}

void guard_leave(struct guard *guard)
{
    left_behind_leave(&guard->process);
    forget(guard);
}
