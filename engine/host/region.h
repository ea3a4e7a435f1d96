// SPDX-License-Identifier: Apache-2.0
//
// Guest memory as a handshake describes it: ranges of the VMM's address space, each at an offset in
// the memory file. Within one VM all pages have one size, and they are numbered through all
// regions.
#ifndef FAULTLINE_HOST_REGION_H
#define FAULTLINE_HOST_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/read.h"

// A page of 2 MiB; one of 4 KiB is FL_PAGE_SHIFT and FL_PAGE_SIZE. There are no others.
#define FL_HUGE_SHIFT 21
#define FL_HUGE_BYTES (UINT64_C(1) << FL_HUGE_SHIFT)
#define FL_HUGE_PAGES (1u << (FL_HUGE_SHIFT - FL_PAGE_SHIFT)) // pages of 4 KiB in it

// The shift of a page size in bytes; 0 if it is neither of the two.
static inline uint32_t fl_page_shift(uint64_t page_bytes)
{
    return page_bytes == FL_PAGE_SIZE    ? FL_PAGE_SHIFT
           : page_bytes == FL_HUGE_BYTES ? FL_HUGE_SHIFT
                                         : 0;
}

// Firecracker sends at most 4 on x86-64; memory hotplug adds some.
enum { FL_REGIONS_MAX = 64 };

struct fl_region {
    uint64_t base;       // address in the VMM, bytes
    uint64_t bytes;      // a multiple of the page size
    uint64_t offset;     // in the memory file, bytes; a multiple of 4 KiB
    uint64_t first_page; // number of its first page among the VM's pages
};

struct fl_layout {
    uint32_t page_shift; // 12 or 21
    uint32_t regions;
    uint64_t pages; // of page_shift size, in all regions
    struct fl_region region[FL_REGIONS_MAX];
};

// Completes first_page and pages, and checks what must hold: page sizes, alignment, no overlap, no
// overflow. -EINVAL with *ret_reason set to a sentence.
int fl_layout_finish(struct fl_layout *layout, const char **ret_reason);
// The end of the last byte of the memory file that a region refers to.
uint64_t fl_layout_file_end(const struct fl_layout *layout);

// The page that holds the address; false if no region does.
bool fl_layout_page(const struct fl_layout *layout, uint64_t address, uint64_t *ret_page);
// The region that holds the page, which must exist.
const struct fl_region *fl_layout_region(const struct fl_layout *layout, uint64_t page);
// Where the page lies in the VMM, and (in 4 KiB pages) in the image.
uint64_t fl_layout_address(const struct fl_layout *layout, uint64_t page);
uint64_t fl_layout_image_page(const struct fl_layout *layout, uint64_t page);
// The page of the VM that holds this page of the image, and how many pages of the image (itself
// counted) its region has from there on. False if the VM has it nowhere.
bool fl_layout_from_image(const struct fl_layout *layout, uint64_t image_page, uint64_t *ret_page,
                          uint64_t *ret_left);

// Of pages of 4 KiB: how many aligned ranges of 2 MiB lie in the region as a whole, and the page
// with which the first one begins.
uint64_t fl_region_ranges(const struct fl_region *region, uint64_t *ret_page);

#endif
