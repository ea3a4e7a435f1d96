// SPDX-License-Identifier: Apache-2.0
//
// Which pages of a process's memory are there: in memory, or in swap. Asked of the kernel's
// pagemap, not of the answers that its ioctls give: UFFDIO_COPY says EEXIST for a huge page that is
// not there while none is free (Linux 6.18 to 7.3; findings/hugetlb_eexist.sh).
//
// By PAGEMAP_SCAN where the kernel has it (6.7), by reading the pagemap where it has not (6.1).
// Documentation/admin-guide/mm/pagemap.rst; include/uapi/linux/fs.h and fs/proc/task_mmu.c of Linux
// 6.18, and tried there:
//  - the open file belongs to the address space, not to the number of the process: when that has
//    ended, or has executed another program, nothing can be read of it any more;
//  - a page that was poisoned counts as there, but not for a huge page that is read (6.6 only);
//  - a page that was write-protected before it was there (UFFD_FEATURE_WP_UNPOPULATED) looks as if
//    it were in swap; it counts as absent, and so does one that is in swap and write-protected.
//
// Both hold the process's mmap lock for reading, so they wait for a thread that holds it for
// writing. Any thread; costs 2 to 4 ms for each GiB of 4 KiB pages that is there, next to nothing
// for what is not and for huge pages.
//
// Errors, of all: -ESRCH the process, or the address space, is gone; -EACCES, -EPERM it is not ours
// to see (CAP_SYS_PTRACE); -ENOENT it is in no PID namespace of ours, or /proc hides it; -EBADF it
// was never opened. Each means "unknown", and none of them "absent".
#ifndef FAULTLINE_HOST_PRESENCE_H
#define FAULTLINE_HOST_PRESENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fl_presence {
    int pagemap;  // -1: what is there is unknown
    bool by_read; // the kernel has no PAGEMAP_SCAN
};

#define FL_PRESENCE_UNKNOWN ((struct fl_presence){.pagemap = -1})

// From `start` up to `end`, all of it there.
struct fl_presence_run {
    uint64_t start;
    uint64_t end;
};

// The same, all of one kind.
struct fl_presence_kind {
    uint64_t start;
    uint64_t end;
    bool protected; // from writing, by a userfaultfd
    bool file;      // of a file, or shared: nobody has written to it through a private mapping
};

enum { FL_PRESENCE_KINDS = 64 };
struct fl_presence_look {
    uint64_t start;
    uint64_t end;
    unsigned page_shift;
    bool no_files; // pages of files are as if they were not there
    uint64_t most; // pages of 4 KiB that are there, at least 1: no more are looked for
    // Set by the look:
    uint64_t looked; // how far: `end`, unless there were more, or more kinds
    size_t count;
    struct fl_presence_kind kind[FL_PRESENCE_KINDS];
};

// Opens the pagemap of the process that the pidfd is of (-1: nothing says that `pid` is still the
// process that it was when it was learnt). To be closed by the caller.
int fl_presence_open(pid_t pid, int pidfd, struct fl_presence *ret_presence);
void fl_presence_close(struct fl_presence *presence);

// Addresses are multiples of 4 KiB; all look at [start, end) only.

// The runs of pages that are there, in order, at most `room` of them; how many, or an error.
// *ret_looked: how far was looked, which is `end` unless there was no more room.
int fl_presence_runs(const struct fl_presence *presence, uint64_t start, uint64_t end,
                     struct fl_presence_run *ret_runs, size_t room, uint64_t *ret_looked);
// As fl_presence_runs(), with what else is known of the pages. A page in swap that is
// write-protected is there. Costs about as much. 0, or an error.
int fl_presence_look(const struct fl_presence *presence, struct fl_presence_look *look);
// Opens the memory of the process to be read: a descriptor, or an error. As the pagemap it belongs
// to the address space.
int fl_presence_open_memory(pid_t pid, int pidfd);
// Reads runs of it, one behind the other. -EIO: a part of it is not there, or is poisoned. It never
// waits for the handler of a fault, who may be the caller: a fault that is raised through
// /proc/PID/mem may not be retried, and handle_userfault() then refuses it (fs/proc/base.c,
// fs/userfaultfd.c), where process_vm_readv() would wait.
int fl_presence_read(int memory, const struct fl_presence_kind *runs, size_t count, void *to);
// The first page that is (not) there: 1 and its address, 0 if there is none, or an error.
int fl_presence_first_present(const struct fl_presence *presence, uint64_t start, uint64_t end,
                              uint64_t *ret_address);
int fl_presence_first_absent(const struct fl_presence *presence, uint64_t start, uint64_t end,
                             uint64_t *ret_address);
// How many of so many pages of 4 KiB are memory of the process's own: not absent, not the shared
// zero page that only reads have seen, and no file's. At most FL_PRESENCE_WRITTEN pages. 0, or an
// error.
enum { FL_PRESENCE_WRITTEN = 512 };
int fl_presence_written(const struct fl_presence *presence, uint64_t start, uint64_t pages,
                        uint64_t *ret_written);
// Sets bit i of `ret_bits` if all of page `start` + (i << page_shift) is there; clears all others
// of its words. 0, or an error.
int fl_presence_bits(const struct fl_presence *presence, uint64_t start, uint64_t pages,
                     unsigned page_shift, uint64_t *ret_bits);

#endif
