// SPDX-License-Identifier: Apache-2.0
#include "engine/host/huge_collapse.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/host/region.h"

// Linux 6.1; the C library of Debian 12 does not name it.
#define ADVICE_COLLAPSE 25

void fl_huge_room_make(struct fl_huge_room *room)
{
    if (!room->base) {
        void *base = mmap(NULL, 2 * FL_HUGE_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            return;
        madvise(base, 2 * FL_HUGE_BYTES, MADV_HUGEPAGE);
        room->base = base;
    }
    size_t skip = -(uintptr_t)room->base % FL_HUGE_BYTES;
    char *page = (char *)room->base + skip;
    *(volatile char *)page = 1;
    madvise(page, FL_HUGE_BYTES, MADV_DONTNEED);
}

void fl_huge_room_end(struct fl_huge_room *room)
{
    if (room->base)
        munmap(room->base, 2 * FL_HUGE_BYTES);
    room->base = NULL;
}

int fl_huge_collapse(int pidfd, uint64_t address)
{
    // One range a call: of several the kernel does not say for which one an error is.
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
    struct iovec range = {.iov_base = (void *)(uintptr_t)address, .iov_len = FL_HUGE_BYTES};
    // A range that is not aligned would "succeed" without anything having been done.
    if (address % FL_HUGE_BYTES != 0)
        return -EINVAL;
    long done = syscall(SYS_process_madvise, pidfd, &range, 1, ADVICE_COLLAPSE, 0);
    if (done < 0)
        return -errno;
    return done == (long)FL_HUGE_BYTES ? 0 : -EAGAIN;
}
