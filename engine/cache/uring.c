// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/uring.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct fl_uring {
    struct io_uring uring;
    int event_fd;
    bool armed;     // the kernel watches event_fd for us
    unsigned reads; // asked for, and not ended
};

void fl_uring_close(struct fl_uring *ring)
{
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

// Whoever has the ring can have the kernel do no more than what we ask of it: what a ring is asked
// for passes by the filter of system calls (call_filter.h).
static int restrict_ring(struct io_uring *uring)
{
    struct io_uring_restriction allowed[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP},
    };
    int fd = uring->ring_fd; // Debian's liburing does not export what would do these two calls
    unsigned count = sizeof(allowed) / sizeof(allowed[0]);
    if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_RESTRICTIONS, allowed, count) != 0 ||
        syscall(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) != 0)
        return -errno;
    return 0;
}

// Where a filter allows a ring to be made, but not to be used, a thread that waits for a read would
// wait for ever.
static int try_out(struct io_uring *uring)
{
    struct io_uring_cqe *cqe = NULL;
    int result = -EINTR;
    io_uring_prep_nop(io_uring_get_sqe(uring));
    while (result == -EINTR)
        result = io_uring_submit_and_wait(uring, 1);
    if (result < 0)
        return result;
    do {
        result = io_uring_wait_cqe(uring, &cqe);
    } while (result == -EINTR);
    if (!result)
        io_uring_cqe_seen(uring, cqe);
    return result;
}

int fl_uring_open(int event_fd, unsigned depth, struct fl_uring **ret_ring)
{
    struct fl_uring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    ring->event_fd = event_fd;
    // One more for the eventfd. Kernels before 5.19 do not know the flag, and do without.
    unsigned flags = IORING_SETUP_R_DISABLED;
    int error = io_uring_queue_init(depth + 1, &ring->uring, flags | IORING_SETUP_COOP_TASKRUN);
    if (error == -EINVAL)
        error = io_uring_queue_init(depth + 1, &ring->uring, flags);
    if (error) {
        free(ring);
        return error;
    }
    error = restrict_ring(&ring->uring);
    if (!error)
        error = try_out(&ring->uring);
    if (error) {
        fl_uring_close(ring);
        return error;
    }
    *ret_ring = ring;
    return 0;
}

// There is an entry for each read that may be on its way: it cannot be NULL after a submission.
static struct io_uring_sqe *entry(struct fl_uring *ring)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring->uring)))
        io_uring_submit(&ring->uring);
    return sqe;
}

void fl_uring_read(struct fl_uring *ring, int fd, void *buf, uint32_t bytes, uint64_t offset,
                   void *user)
{
    struct io_uring_sqe *sqe = entry(ring);
    io_uring_prep_read(sqe, fd, buf, bytes, offset);
    io_uring_sqe_set_data(sqe, user);
    ring->reads++;
}

static void arm(struct fl_uring *ring)
{
    if (ring->armed)
        return;
    struct io_uring_sqe *sqe = entry(ring);
    io_uring_prep_poll_add(sqe, ring->event_fd, POLLIN);
    io_uring_sqe_set_data(sqe, NULL);
    ring->armed = true;
}

// The kernel is short of something: not at once again.
static void pause_briefly(struct fl_uring *ring)
{
    struct pollfd poll_fd = {.fd = ring->event_fd, .events = POLLIN};
    poll(&poll_fd, 1, 1);
}

// Whoever waits in a ring that has anything under way counts as waiting for a disk: an idle host
// would look as if all of its time went into I/O (/proc/pressure/io, iowait).
static void wait_outside(struct fl_uring *ring)
{
    struct pollfd poll_fd = {.fd = ring->event_fd, .events = POLLIN};
    poll(&poll_fd, 1, -1);
}

bool fl_uring_turn(struct fl_uring *ring, bool wait,
                   void (*done)(void *arg, void *user, int result), void *arg)
{
    struct io_uring_cqe *cqe;
    bool any = false;
    if (wait && ring->reads == 0)
        wait_outside(ring);
    wait = wait && ring->reads > 0;
    if (wait)
        arm(ring);
    int result = 0;
    if (wait || io_uring_sq_ready(&ring->uring) > 0)
        result = io_uring_submit_and_wait(&ring->uring, wait);
    if (result < 0 && result != -EINTR)
        pause_briefly(ring);
    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        void *user = io_uring_cqe_get_data(cqe);
        int ended = cqe->res;
        io_uring_cqe_seen(&ring->uring, cqe);
        if (user) {
            ring->reads--;
            done(arg, user, ended);
        } else {
            ring->armed = false;
        }
        if (!user && ended < 0)
            pause_briefly(ring);
        any = any || user;
    }
    return any;
}
