// SPDX-License-Identifier: Apache-2.0
#include "engine/host/huge_collapse.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/host/region.h"

// Linux 6.1; the C library of Debian 12 does not name it.
#define ADVICE_COLLAPSE 25

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
