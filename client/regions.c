// SPDX-License-Identifier: Apache-2.0
#include "client/regions.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

// linux/mman.h has it, too, but cannot be included beside sys/mman.h everywhere. The log2 of 2 MiB
// stands at bit 26.
#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

// Checks the region's bytes and offset, for which no address is needed.
static bool is_sound(const struct fl_client_region *region, uint32_t page_bytes)
{
    return region->bytes > 0 && region->bytes % page_bytes == 0 &&
           region->offset % FL_CLIENT_PAGE == 0 && region->bytes <= INT64_MAX &&
           region->offset <= INT64_MAX - region->bytes;
}

int fl_client_check_sizes(const struct fl_client_region *regions, size_t count, uint32_t page_bytes)
{
    if (sysconf(_SC_PAGESIZE) != FL_CLIENT_PAGE)
        return -EOPNOTSUPP;
    if (page_bytes != FL_CLIENT_PAGE && page_bytes != FL_CLIENT_HUGE_PAGE)
        return -EINVAL;
    if (count == 0 || count > FL_CLIENT_REGIONS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (!is_sound(&regions[i], page_bytes))
            return -EINVAL;
    }
    return 0;
}

static bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

// True if the two regions overlap neither in memory nor in the image.
static bool are_apart(const struct fl_client_region *a, const struct fl_client_region *b)
{
    return !ranges_overlap((uintptr_t)a->address, a->bytes, (uintptr_t)b->address, b->bytes) &&
           !ranges_overlap(a->offset, a->bytes, b->offset, b->bytes);
}

int fl_client_check_places(const struct fl_client_region *regions, size_t count,
                           uint32_t page_bytes)
{
    for (size_t i = 0; i < count; i++) {
        uintptr_t address = (uintptr_t)regions[i].address;
        if (address == 0 || address % page_bytes != 0 || address > UINTPTR_MAX - regions[i].bytes)
            return -EINVAL;
        for (size_t j = 0; j < i; j++) {
            if (!are_apart(&regions[i], &regions[j]))
                return -EINVAL;
        }
    }
    return 0;
}

// The kernel does not fill a mapping that no access is allowed to, so the access is allowed after
// the lock has been taken off.
void *fl_client_map_unfilled(void *address, size_t bytes, int flags, int fd, uint64_t offset)
{
    void *memory = mmap(address, bytes, PROT_NONE, flags, fd, (off_t)offset);
    if (memory == MAP_FAILED ||
        (munlock(memory, bytes) == 0 && mprotect(memory, bytes, PROT_READ | PROT_WRITE) == 0))
        return memory;
    int error = errno;
    munmap(memory, bytes);
    errno = error;
    return MAP_FAILED;
}

void fl_client_unmap_memory(const struct fl_client_region *regions, size_t count)
{
    for (size_t i = 0; i < count; i++)
        munmap(regions[i].address, regions[i].bytes);
}

int fl_client_map_memory(struct fl_client_region *regions, size_t count, uint32_t page_bytes,
                         bool reserved)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (reserved ? 0 : MAP_NORESERVE);
    if (page_bytes == FL_CLIENT_HUGE_PAGE)
        flags |= MAP_HUGETLB | MAP_HUGE_2MB;
    for (size_t i = 0; i < count; i++) {
        void *address = fl_client_map_unfilled(NULL, regions[i].bytes, flags, -1, 0);
        if (address == MAP_FAILED) {
            int error = -errno;
            fl_client_unmap_memory(regions, i);
            return error;
        }
        regions[i].address = address;
    }
    return 0;
}
