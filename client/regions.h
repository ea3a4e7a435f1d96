// SPDX-License-Identifier: Apache-2.0
//
// Checks the regions of a client, and maps memory for them. The calls share no state: any thread
// may make them.
#ifndef FAULTLINE_CLIENT_REGIONS_H
#define FAULTLINE_CLIENT_REGIONS_H

#include <faultline_client.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Checks what needs no address: the number of regions, the page size, each region's bytes and
// offset. Returns 0 or -EINVAL.
int fl_client_check_sizes(const struct fl_client_region *regions, size_t count,
                          uint32_t page_bytes);
// Checks the addresses: they are multiples of the page size, and no two regions overlap in memory
// or in the image. Returns 0 or -EINVAL.
int fl_client_check_places(const struct fl_client_region *regions, size_t count,
                           uint32_t page_bytes);

// Does what mmap() does for readable and writable memory, but leaves the memory unfilled. Under
// mlockall(MCL_FUTURE), mmap() itself fills new memory with zeros, and the holes of a template with
// zeros for all its clients. Returns the address, or MAP_FAILED with errno set.
void *fl_client_map_unfilled(void *address, size_t bytes, int flags, int fd, uint64_t offset);
// Maps private anonymous memory for each region and sets its address. `reserved`: the pool sets all
// of its pages aside; -ENOMEM if it cannot. Returns 0, or -errno with nothing mapped.
int fl_client_map_memory(struct fl_client_region *regions, size_t count, uint32_t page_bytes,
                         bool reserved);
void fl_client_unmap_memory(const struct fl_client_region *regions, size_t count);

#endif
