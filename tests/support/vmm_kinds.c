// SPDX-License-Identifier: Apache-2.0
//
// The parts of vmm.h for guest memory of other kinds than most VMs have, and for what Firecracker
// does with it.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

void vmm_map_file(struct vmm *vmm, const struct memory *memory, unsigned regions, const char *file,
                  bool shared)
{
    int fd = open(file, O_RDWR | O_CLOEXEC);
    fd = fd < 0 ? open(file, O_RDONLY | O_CLOEXEC) : fd; // a template cannot be written to
    vmm_map_memory(vmm, memory, PAGE, regions, VMM_MAIN);
    vmm->of_file = true;
    CHECK(fd >= 0, "%s: %s", file, strerror(errno));
    for (unsigned i = 0; i < regions; i++) {
        const struct vmm_region *region = &vmm->region[i];
        CHECK(mmap(region->base, region->bytes, PROT_READ | PROT_WRITE,
                   (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE | MAP_FIXED, fd,
                   (off_t)region->offset) != MAP_FAILED,
              "mmap of %s: %s", file, strerror(errno));
    }
    close(fd);
}

bool vmm_give_back_of_file(struct vmm *vmm, uint32_t page)
{
    uint8_t *at = vmm_page(vmm, page);
    bool at_end = page + 1 == vmm->pages || vmm_page(vmm, page + 1) != at + PAGE;
    bool by_balloon = page % 2 && !at_end; // there it is not certain whose the memory is
    if (by_balloon)
        CHECK(mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                   0) == at,
              "mmap: %s", strerror(errno));
    else
        CHECK(madvise(at, PAGE, MADV_DONTNEED) == 0, "madvise: %s", strerror(errno));
    return by_balloon;
}

void vmm_load(struct vmm *vmm, const char *socket)
{
    struct stat status;
    if (stat(socket, &status) != 0)
        _exit(1);
    vmm_handshake(vmm, socket);
    vmm_check(vmm, vmm->pages / 2);
    vmm_check(vmm, vmm->pages / 3);
}

void vmm_add_hotplug(struct vmm *vmm, uint64_t bytes)
{
    struct vmm_region *region = &vmm->region[vmm->regions++];
    uint64_t offset = vmm_page_offset(vmm, vmm->pages);
    uint32_t pages = (uint32_t)(bytes / vmm->page_bytes);
    CHECK(vmm->regions <= VMM_REGIONS, "%u regions", vmm->regions);
    void *base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(base != MAP_FAILED, "mmap: %s", strerror(errno));
    *region = (struct vmm_region){.base = base, .bytes = bytes, .offset = offset};
    vmm->removed = realloc(vmm->removed, (vmm->pages + pages) * sizeof(*vmm->removed));
    CHECK(vmm->removed, "no memory");
    memset(vmm->removed + vmm->pages, false, pages * sizeof(*vmm->removed));
    vmm->pages += pages;
}

void vmm_plug(struct vmm *vmm, bool plugged)
{
    const struct vmm_region *region = &vmm->region[vmm->regions - 1];
    if (!plugged)
        CHECK(madvise(region->base, region->bytes, MADV_DONTNEED) == 0, "%s", strerror(errno));
    CHECK(mprotect(region->base, region->bytes, plugged ? PROT_READ | PROT_WRITE : PROT_NONE) == 0,
          "mprotect: %s", strerror(errno));
}

void vmm_balloon_silently(struct vmm *vmm, uint32_t page, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        void *place = vmm_page(vmm, page + 2 * i);
        CHECK(mmap(place, vmm->page_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == place,
              "mmap: %s", strerror(errno));
        vmm->removed[page + 2 * i] = true;
    }
}

bool vmm_balloon(struct vmm *vmm, uint8_t *start, uint64_t bytes)
{
    (void)vmm;
    if (madvise(start, bytes, MADV_DONTNEED) == 0)
        return true;
    CHECK(errno == EINVAL, "madvise: %s", strerror(errno));
    return false;
}
