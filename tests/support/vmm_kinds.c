// SPDX-License-Identifier: Apache-2.0
//
// The parts of vmm.h for guest memory of other kinds than most VMs have.
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/vmm.h"

int vmm_map_shared(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes,
                   unsigned regions)
{
    unsigned huge = page_bytes == HUGE ? MFD_HUGETLB | (21U << 26) : 0;
    int fd = memfd_create("guest", MFD_CLOEXEC | huge);
    vmm_map_memory(vmm, memory, page_bytes, regions, VMM_MAIN);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)vmm->pages * page_bytes) == 0, "a memfd: %s",
          strerror(errno));
    for (unsigned i = 0; i < regions; i++) {
        const struct vmm_region *region = &vmm->region[i];
        CHECK(mmap(region->base, region->bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, (off_t)region->offset) != MAP_FAILED,
              "mmap of a memfd: %s", strerror(errno));
    }
    vmm->uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm->uffd, 0);
    vmm_register(vmm);
    return fd;
}
