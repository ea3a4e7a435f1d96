// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/orphan_look.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"
#include "engine/host/uffd.h"
#include "engine/rescue/orphan_state.h"

enum { SEEN = 16 };

// A userfaultfd of the VMM.
struct candidate {
    struct fl_proc_uffd uffd;
    int fd;
    bool any; // there is one
};

// What a look works with.
struct look {
    struct fl_orphan *orphan;
    pid_t tid; // of the VMM, through which its descriptors are to be had
    struct fl_error *error;
    size_t uffds;        // of the VMM, each counted once
    size_t with_waiting; // those on which a thread waits
    uint64_t seen[SEEN]; // their identities
    char list[256];      // in words
    struct candidate asked, first, waiting, chosen;
};

// --- which userfaultfd ---

static bool seen_before(const struct look *look, uint64_t inode)
{
    for (size_t i = 0; i < look->uffds && i < SEEN; i++) {
        if (look->seen[i] == inode)
            return true;
    }
    return false;
}

static void list_one(struct look *look, const struct candidate *found)
{
    size_t used = strlen(look->list);
    snprintf(look->list + used, sizeof(look->list) - used, "%s%d (%" PRIu64 " faults waiting)",
             used ? ", " : "", found->fd, found->uffd.total);
}

static int count_uffd(void *arg, const struct fl_proc_fd *fd)
{
    struct look *look = arg;
    struct candidate found = {.fd = fd->fd, .any = true};
    if (!fl_proc_uffd(fd, &found.uffd))
        return 0;
    if (look->orphan->fd == fd->fd)
        look->asked = found;
    if (seen_before(look, found.uffd.inode))
        return 0;
    if (look->uffds < SEEN)
        look->seen[look->uffds] = found.uffd.inode;
    if (look->uffds++ == 0)
        look->first = found;
    if (found.uffd.total > 0 && look->with_waiting++ == 0)
        look->waiting = found;
    list_one(look, &found);
    return 0;
}

static int choose_uffd(struct look *look)
{
    struct fl_orphan *orphan = look->orphan;
    int pid = (int)orphan->pid;
    int result = fl_proc_each_fd(orphan->pid, count_uffd, look);
    if (result < 0)
        return fl_fail_plain(look->error, result, "the descriptors of pid %d cannot be read: %s",
                             pid, strerror(-result));
    if (look->uffds == 0)
        return fl_fail_plain(look->error, -ENXIO, "%s (pid %d) has no userfaultfd", orphan->name,
                             pid);
    if (orphan->fd >= 0 && !look->asked.any)
        return fl_fail_plain(look->error, -ENXIO,
                             "descriptor %d of %s (pid %d) is not a userfaultfd; these are: %s",
                             orphan->fd, orphan->name, pid, look->list);
    if (orphan->fd < 0 && look->uffds > 1 && look->with_waiting != 1)
        return fl_fail_plain(
            look->error, -ENOTUNIQ,
            "%s (pid %d) has %zu userfaultfds, as descriptors %s: choose one with --fd",
            orphan->name, pid, look->uffds, look->list);
    look->chosen = orphan->fd >= 0 ? look->asked : look->uffds == 1 ? look->first : look->waiting;
    return 0;
}

static int take_uffd(struct look *look)
{
    struct fl_orphan *orphan = look->orphan;
    int fd = fl_proc_take_fd(orphan->pid, look->tid, look->chosen.fd);
    if (fd < 0)
        return fl_fail_plain(look->error, fd, "descriptor %d of %s (pid %d) cannot be copied: %s",
                             look->chosen.fd, orphan->name, (int)orphan->pid, strerror(-fd));
    orphan->uffd = fd;
    // It may have become another since it was looked at.
    struct fl_proc_fd ours = {
        .pid = getpid(), .tid = getpid(), .fd = fd, .target = FL_PROC_UFFD_TARGET};
    struct fl_proc_uffd again;
    if (!fl_proc_uffd(&ours, &again) || again.inode != look->chosen.uffd.inode)
        return fl_fail_plain(look->error, -EAGAIN,
                             "descriptor %d of %s (pid %d) changed while it was looked at",
                             look->chosen.fd, orphan->name, (int)orphan->pid);
    if (!again.ready)
        return fl_fail_plain(look->error, -ENXIO,
                             "the userfaultfd of %s (pid %d) is not in use yet", orphan->name,
                             (int)orphan->pid);
    orphan->fd = look->chosen.fd;
    orphan->inode = again.inode;
    orphan->features = again.features;
    orphan->waiting = again.total;
    return 0;
}

// --- its memory ---

// Neighbours become one: VMAs are split and merged as the kernel likes.
static int add_range(void *arg, const struct fl_proc_range *range)
{
    struct fl_orphan *orphan = arg;
    if (!fl_uffd_owns(orphan->uffd, range->start, range->bytes))
        return 0;
    struct fl_proc_range *last = orphan->ranges > 0 ? &orphan->range[orphan->ranges - 1] : NULL;
    if (last && last->start + last->bytes == range->start &&
        last->page_bytes == range->page_bytes) {
        last->bytes += range->bytes;
        return 0;
    }
    struct fl_proc_range *more = realloc(orphan->range, (orphan->ranges + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    orphan->range = more;
    more[orphan->ranges++] = *range;
    return 0;
}

static int find_ranges(struct look *look)
{
    int result = fl_proc_each_registered(look->orphan->pid, add_range, look->orphan);
    if (result < 0)
        return fl_fail_plain(look->error, result, "the memory of %s (pid %d) cannot be read: %s",
                             look->orphan->name, (int)look->orphan->pid, strerror(-result));
    return 0;
}

// --- which other processes have it ---

static int add_holder(void *arg, const struct fl_proc_fd *fd)
{
    struct fl_orphan *orphan = arg;
    struct fl_proc_uffd uffd;
    if (fd->pid == orphan->pid || fd->pid == getpid() || !fl_proc_uffd(fd, &uffd) ||
        uffd.inode != orphan->inode || fl_proc_is_ending(fd->pid))
        return 0;
    struct fl_orphan_holder *more = realloc(orphan->holder, (orphan->holders + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    orphan->holder = more;
    struct fl_orphan_holder *holder = &more[orphan->holders++];
    *holder = (struct fl_orphan_holder){.pid = fd->pid, .tid = fd->tid, .fd = fd->fd};
    fl_proc_name(fd->pid, holder->name, sizeof(holder->name));
    return 0;
}

static int find_holders(struct look *look)
{
    bool complete = true;
    int result = fl_proc_each_fd_of_all(add_holder, look->orphan, &complete);
    if (result < 0)
        return fl_fail_plain(look->error, result, "/proc cannot be read: %s", strerror(-result));
    if (!complete)
        return fl_fail_plain(look->error, -EPERM,
                             "not all processes can be looked at: run this as root");
    return 0;
}

// --- what was kept of it ---

static int find_layout(struct look *look)
{
    struct fl_orphan *orphan = look->orphan;
    int error = fl_orphan_find_state(orphan, look->error);
    if (error)
        return error;
    if (orphan->state) { // else it stays unknown
        orphan->layout = orphan->state->layout;
        orphan->layout_from = FL_LAYOUT_KEPT;
    }
    return 0;
}

// --- all of it ---

static int look_at_process(struct look *look)
{
    struct fl_orphan *orphan = look->orphan;
    int pid = (int)orphan->pid;
    if (fl_proc_view() == FL_PROC_OTHER)
        return fl_fail_plain(
            look->error, -EXDEV,
            "/proc belongs to another PID namespace: its process %d is a different one", pid);
    orphan->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (orphan->pidfd < 0)
        return fl_fail_plain(look->error, -errno, "there is no process %d: %s", pid,
                             strerror(errno));
    fl_proc_name(orphan->pid, orphan->name, sizeof(orphan->name));
    if (fl_proc_live_task(orphan->pid, &look->tid) != 0)
        return fl_fail_plain(look->error, -ESRCH,
                             "%s (pid %d) is dying, and its descriptors are gone already",
                             orphan->name, pid);
    return 0;
}

static int look_all(struct look *look)
{
    static int (*const steps[])(struct look *) = {look_at_process, choose_uffd,  take_uffd,
                                                  find_ranges,     find_holders, find_layout};
    int error = 0;
    for (size_t i = 0; !error && i < sizeof(steps) / sizeof(*steps); i++)
        error = steps[i](look);
    return error;
}

int fl_orphan_look(pid_t pid, int fd, struct fl_orphan *ret_orphan, struct fl_error *ret_error)
{
    struct fl_orphan orphan = {.pid = pid, .pidfd = -1, .uffd = -1, .fd = fd, .state_fd = -1};
    struct look work = {.orphan = &orphan, .error = ret_error};
    fl_fail_plain(ret_error, -ENOMEM, "there is no memory");
    int error = look_all(&work);
    if (error)
        fl_orphan_close(&orphan);
    else
        *ret_orphan = orphan;
    return error;
}
