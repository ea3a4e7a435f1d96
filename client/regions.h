// SPDX-License-Identifier: Apache-2.0
//
// Regions of a client: whether they can be handed over, and the memory that the library maps for
// them. Any thread; each call is about the array that it is given.
#ifndef FAULTLINE_CLIENT_REGIONS_H
#define FAULTLINE_CLIENT_REGIONS_H

#include <faultline_client.h>
#include <stddef.h>
#include <stdint.h>

// Checks what needs no address: the number of regions, the page size, each region's bytes and
// offset. 0 or -EINVAL.
int fl_client_check_sizes(const struct fl_client_region *regions, size_t count,
                          uint32_t page_bytes);
// Checks the addresses: whole pages, and no two regions overlap in memory or in the image. 0 or
// -EINVAL.
int fl_client_check_places(const struct fl_client_region *regions, size_t count,
                           uint32_t page_bytes);

// mmap() without the kernel's filling the memory, which it does otherwise under
// mlockall(MCL_FUTURE): with zeros, and the holes of a template with zeros for all its clients. The
// memory is readable and writable. MAP_FAILED, with errno set.
void *fl_client_map_unfilled(void *address, size_t bytes, int flags, int fd, uint64_t offset);
// Maps private anonymous memory for each region and sets its address. 0, or -errno with nothing
// mapped.
int fl_client_map_memory(struct fl_client_region *regions, size_t count, uint32_t page_bytes);
void fl_client_unmap_memory(const struct fl_client_region *regions, size_t count);

#endif
