// SPDX-License-Identifier: Apache-2.0
#include "engine/host/answer_without_image.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/host/uffd.h"

enum { BATCH = 64, LOOK_EVERY_MS = 50, AGAIN_MS = 1, NOWHERE = 1 << 16 };

static const uint64_t page_sizes[] = {1U << 12, 1U << 21, 1U << 30};
enum { PAGE_SIZES = sizeof(page_sizes) / sizeof(*page_sizes) };

struct condemned {
    struct pollfd *watch; // its descriptors are ours
    size_t watches;
    uint64_t page_bytes;
    bool dying;
    bool again; // something could not be answered yet
    struct fl_answered done;
};

static int add_watch(struct condemned *all, int uffd)
{
    struct pollfd *more = realloc(all->watch, (all->watches + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    all->watch = more;
    more[all->watches++] = (struct pollfd){.fd = uffd, .events = POLLIN};
    return 0;
}

// Zeros by ZEROPAGE, which huge pages do not have: there, by a copy.
static int zero_page(int uffd, uint64_t to, uint64_t bytes)
{
    uint64_t done = 0;
    int error = fl_uffd_zero(uffd, to, bytes, true, &done);
    if (error != -EINVAL || bytes == page_sizes[0])
        return error;
    void *zeros = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros == MAP_FAILED)
        return -errno;
    error = fl_uffd_copy(uffd, to, zeros, bytes, true, &done);
    munmap(zeros, bytes);
    return error;
}

static int answer_page(struct condemned *all, int uffd, const struct uffd_msg *message,
                       uint64_t bytes)
{
    uint64_t page = message->arg.pagefault.address & ~(bytes - 1);
    if (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
        return fl_uffd_unprotect(uffd, page, bytes);
    int error = fl_uffd_poison(uffd, page, bytes);
    if (error == 0)
        all->done.poisoned++;
    if (error == -ENOSYS && all->dying) {
        error = zero_page(uffd, page, bytes);
        all->done.zeroed += error == 0;
    }
    return error;
}

// A thread that no answer reached is woken: it looks again, and faults again if it must.
static void answer_fault(struct condemned *all, int uffd, const struct uffd_msg *message)
{
    int error = -EINVAL;
    all->done.faults++;
    for (size_t i = 0; error == -EINVAL && i < PAGE_SIZES; i++) {
        if (!all->page_bytes || all->page_bytes == page_sizes[i])
            error = answer_page(all, uffd, message, page_sizes[i]);
    }
    all->again = all->again || error;
    if (error)
        fl_uffd_wake(uffd, message->arg.pagefault.address & ~(page_sizes[0] - 1), page_sizes[0]);
}

static int read_one(struct condemned *all, int uffd)
{
    struct uffd_msg message[BATCH];
    ssize_t got = fl_uffd_read(uffd, message, BATCH);
    int error = 0;
    for (ssize_t i = 0; i * (ssize_t)sizeof(*message) < got && !error; i++) {
        if (message[i].event == UFFD_EVENT_PAGEFAULT)
            answer_fault(all, uffd, &message[i]);
        else if (message[i].event == UFFD_EVENT_FORK)
            error = add_watch(all, (int)message[i].arg.fork.ufd);
    }
    return error;
}

static void drop_uffd(struct condemned *all, size_t index)
{
    close(all->watch[index].fd);
    all->watch[index] = all->watch[--all->watches];
}

static void look_at_all(struct condemned *all, int *error)
{
    all->again = false;
    for (size_t i = all->watches; i-- > 0 && !*error;) {
        *error = read_one(all, all->watch[i].fd);
        if (!*error && !fl_uffd_alive(all->watch[i].fd))
            drop_uffd(all, i);
    }
}

static int serve_all(struct condemned *all, bool (*go_on)(void *arg), void *arg)
{
    int error = 0;
    while (all->watches > 0 && !error && (!go_on || go_on(arg))) {
        poll(all->watch, all->watches, all->again ? AGAIN_MS : LOOK_EVERY_MS);
        look_at_all(all, &error);
    }
    return error;
}

bool fl_answer_can_poison(int uffd)
{
    return fl_uffd_poison(uffd, NOWHERE, page_sizes[0]) != -ENOSYS;
}

// A reference of our own, non-blocking, with what others have read of it asked for again.
static int take_uffd(struct condemned *all, int uffd)
{
    struct fl_uffd_info info;
    int error = fl_uffd_examine(uffd, &info);
    if (!error && !all->dying && !fl_answer_can_poison(uffd))
        error = -ENOSYS;
    int own = error ? -1 : fcntl(uffd, F_DUPFD_CLOEXEC, 0);
    if (!error && own < 0)
        error = -errno;
    if (!error)
        error = add_watch(all, own);
    if (error && own >= 0)
        close(own);
    fl_uffd_wake_all(uffd);
    return error;
}

static void drop_all(struct condemned *all)
{
    while (all->watches > 0)
        drop_uffd(all, all->watches - 1);
    free(all->watch);
}

int fl_answer_without_image(int uffd, uint64_t page_bytes, bool dying,
                            struct fl_answered *ret_answered)
{
    struct condemned all = {.page_bytes = page_bytes, .dying = dying};
    int error = take_uffd(&all, uffd);
    if (!error)
        error = serve_all(&all, NULL, NULL);
    drop_all(&all);
    if (!error)
        *ret_answered = all.done;
    return error;
}

int fl_answer_without_image_all(const int *uffds, size_t count, bool (*go_on)(void *arg), void *arg)
{
    struct condemned all = {.page_bytes = 0};
    int error = 0;
    for (size_t i = 0; i < count && error != -ENOSYS; i++)
        error = uffds[i] < 0 ? error : take_uffd(&all, uffds[i]);
    int served = serve_all(&all, go_on, arg);
    drop_all(&all);
    return served ? served : error;
}
