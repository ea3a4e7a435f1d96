// SPDX-License-Identifier: Apache-2.0
#include "engine/host/memory_owner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/kcmp.h>

#include "engine/host/presence.h"
#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"
#include "engine/host/uffd.h"
#include "snapshot/read.h"

struct search {
    int uffd;
    uint64_t inode; // of the userfaultfd
    const struct fl_layout *layout;
    bool prove;
    pid_t first;    // looked at before all others
    unsigned likes; // processes that could be it, each memory counted once
    struct fl_memory_owner found;
};

// --- one process ---

struct cover {
    const struct search *search;
    uint64_t bytes;   // of the layout, that are registered in the process
    bool shared;      // ... some of them for others to share
    bool file;        // ... some of them of a file
    bool transparent; // ... some of them where faults may bring huge pages
    bool unreserved;  // ... some of them with MAP_NORESERVE
    bool any;         // some memory of it is registered in the address space behind the userfaultfd
};

static uint64_t page_bytes(const struct search *search)
{
    return search->layout->regions > 0 ? 1ULL << search->layout->page_shift : FL_PAGE_SIZE;
}

static uint64_t range_overlap(const struct fl_proc_range *range, const struct fl_region *region,
                              uint64_t *ret_start)
{
    uint64_t start = range->start > region->base ? range->start : region->base;
    uint64_t range_end = range->start + range->bytes;
    uint64_t region_end = region->base + region->bytes;
    uint64_t end = range_end < region_end ? range_end : region_end;
    *ret_start = start;
    return end > start ? end - start : 0;
}

static int add_range(void *arg, const struct fl_proc_range *range)
{
    struct cover *cover = arg;
    const struct fl_layout *layout = cover->search->layout;
    uint64_t page = page_bytes(cover->search);
    if (layout->regions == 0)
        cover->any = fl_uffd_registered(cover->search->uffd, range->start, range->page_bytes);
    for (uint32_t i = 0; i < layout->regions; i++) {
        uint64_t start = 0;
        uint64_t bytes = range_overlap(range, &layout->region[i], &start);
        cover->bytes += bytes;
        cover->shared = cover->shared || (bytes > 0 && range->shared);
        cover->file = cover->file || (bytes > 0 && range->file);
        cover->transparent = cover->transparent || (bytes > 0 && range->transparent);
        cover->unreserved = cover->unreserved || (bytes > 0 && range->unreserved);
        if (bytes > 0 && !cover->any)
            cover->any = fl_uffd_registered(cover->search->uffd, start & ~(page - 1), page);
    }
    return cover->any && layout->regions == 0;
}

static int is_it(void *arg, const struct fl_proc_fd *fd)
{
    const struct search *search = arg;
    struct fl_proc_uffd uffd;
    if (!fl_proc_uffd(fd, &uffd) || uffd.inode != search->inode)
        return 0;
    // Where kcmp is not to be had (its own right, its own option of the kernel) the number stands.
    long same = syscall(SYS_kcmp, getpid(), fd->pid, KCMP_FILE, search->uffd, fd->fd);
    return same <= 0;
}

bool fl_memory_owner_same_memory(pid_t a, pid_t b)
{
    return a == b || syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0;
}

static bool process_lives(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return poll(&ended, 1, 0) == 0;
}

enum verdict { NOT_IT, PERHAPS, CERTAIN };

// A page that is missing in the process is poisoned through the userfaultfd: now it must be there.
static enum verdict prove(const struct search *search, const struct fl_presence *presence,
                          const struct fl_region *region)
{
    uint64_t page = page_bytes(search);
    uint64_t absent = 0;
    uint64_t present = 0;
    uint64_t end = region->base + region->bytes;
    if (fl_presence_first_absent(presence, region->base, end, &absent) != 1)
        return PERHAPS;
    absent &= ~(page - 1);
    int error = fl_uffd_poison_quietly(search->uffd, absent, page);
    if (error == -EEXIST ||
        error == -ENOENT) // in the memory behind the userfaultfd it is otherwise
        return NOT_IT;
    if (error)
        return PERHAPS;
    if (fl_presence_first_present(presence, absent, absent + page, &present) == 1)
        return CERTAIN;
    return presence->by_read && page > FL_PAGE_SIZE ? PERHAPS
                                                    : NOT_IT; // Linux 6.6 does not show it there
}

static enum verdict proof(const struct search *search, pid_t pid, int pidfd)
{
    struct fl_presence presence;
    enum verdict verdict = PERHAPS;
    if (!search->prove || fl_presence_open(pid, pidfd, &presence) != 0)
        return PERHAPS;
    for (uint32_t i = 0; i < search->layout->regions && verdict == PERHAPS; i++)
        verdict = prove(search, &presence, &search->layout->region[i]);
    fl_presence_close(&presence);
    return verdict;
}

static enum verdict judge_process(struct search *search, pid_t pid, int pidfd, bool complete)
{
    enum verdict verdict = proof(search, pid, pidfd);
    if (verdict == PERHAPS && fl_proc_each_fd(pid, is_it, search) == 1)
        return CERTAIN;
    if (verdict == PERHAPS && !complete)
        return NOT_IT;
    return verdict;
}

// 1: it is the one.
static int consider(struct search *search, pid_t pid, bool complete, const struct cover *cover)
{
    struct fl_memory_owner *found = &search->found;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    enum verdict verdict = pidfd < 0 ? NOT_IT : judge_process(search, pid, pidfd, complete);
    // It may have ended, and its number may be another's: then that was looked at, or a part of
    // each.
    if (verdict != NOT_IT && !process_lives(pidfd))
        verdict = NOT_IT;
    if (verdict == PERHAPS && search->likes > 0 && fl_memory_owner_same_memory(pid, found->pid))
        verdict = NOT_IT;
    if (verdict == NOT_IT) {
        if (pidfd >= 0)
            close(pidfd);
        return 0;
    }
    search->likes++;
    if (found->pidfd >= 0)
        close(found->pidfd);
    *found = (struct fl_memory_owner){.pid = pid,
                                      .pidfd = pidfd,
                                      .complete = complete,
                                      .shared = cover->shared,
                                      .file = cover->file,
                                      .transparent = cover->transparent,
                                      .unreserved = cover->unreserved};
    return verdict == CERTAIN;
}

static int look_at(struct search *search, pid_t pid)
{
    const struct fl_layout *layout = search->layout;
    struct cover cover = {.search = search};
    if (fl_proc_each_registered(pid, add_range, &cover) < 0 || !cover.any)
        return 0;
    return consider(search, pid,
                    layout->regions > 0 && cover.bytes == layout->pages << layout->page_shift,
                    &cover);
}

// --- all of them ---

static int look_at_any(void *arg, int pid)
{
    struct search *search = arg;
    if (pid == search->first || pid == getpid() ||
        (search->layout->regions > 0 && fl_proc_unmapped(pid, search->layout)))
        return 0;
    return look_at(search, pid);
}

int fl_memory_owner_find(int uffd, const struct fl_layout *layout, pid_t likely, bool prove,
                         struct fl_memory_owner *ret_owner)
{
    struct search search = {
        .uffd = uffd, .layout = layout, .prove = prove, .first = likely, .found.pidfd = -1};
    struct stat status;
    if (fstat(uffd, &status) != 0)
        return -errno;
    search.inode = status.st_ino;
    int result = likely > 0 ? look_at(&search, likely) : 0;
    if (result == 0)
        result = fl_proc_each("/proc", look_at_any, &search);
    // Of memory that is gone no process can have it, however much its own looks like that.
    if (result == 1 || (result == 0 && search.likes == 1 && fl_uffd_alive(uffd))) {
        *ret_owner = search.found;
        return 0;
    }
    if (search.found.pidfd >= 0)
        close(search.found.pidfd);
    return result < 0 ? result : search.likes > 1 ? -ENOTUNIQ : -ESRCH;
}

// --- what it is ---

static int is_guest(void *arg, const struct fl_proc_fd *fd)
{
    (void)arg;
    return strncmp(fd->target, "anon_inode:kvm-v", sizeof("anon_inode:kvm-v") - 1) == 0;
}

bool fl_memory_owner_has_kvm(pid_t pid)
{
    int result = fl_proc_each_fd(pid, is_guest, NULL);
    return result == 1 || (result < 0 && result != -ENOENT && result != -ESRCH);
}
