// SPDX-License-Identifier: Apache-2.0
#include "engine/host/region.h"

#include <errno.h>

#include "snapshot/read.h"

// User addresses end below this on x86-64 with five-level paging; the kernel checks the rest.
#define ADDRESS_END (1ULL << 56)

static const char *check_region(const struct fl_region *region, uint64_t page_bytes)
{
    if (region->bytes == 0)
        return "a region is empty";
    if (region->bytes % page_bytes != 0)
        return "a region's size is not a multiple of its page size";
    if (region->base % page_bytes != 0)
        return "a region's address is not a multiple of its page size";
    if (region->offset % FL_PAGE_SIZE != 0)
        return "a region's offset is not a multiple of 4096";
    if (region->base == 0 || region->base >= ADDRESS_END ||
        region->bytes > ADDRESS_END - region->base)
        return "a region does not fit into an address space";
    if (region->offset >= ADDRESS_END || region->bytes > ADDRESS_END - region->offset)
        return "a region's offset and size overflow";
    return NULL;
}

static bool bytes_overlap(uint64_t a, uint64_t b, uint64_t a_bytes, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static const char *check_against(const struct fl_layout *layout, uint32_t index)
{
    const struct fl_region *region = &layout->region[index];
    for (uint32_t i = 0; i < index; i++) {
        const struct fl_region *other = &layout->region[i];
        if (bytes_overlap(region->base, other->base, region->bytes, other->bytes))
            return "two regions overlap in memory";
        if (bytes_overlap(region->offset, other->offset, region->bytes, other->bytes))
            return "two regions overlap in the memory file";
    }
    return NULL;
}

int fl_layout_finish(struct fl_layout *layout, const char **ret_reason)
{
    const char *reason = NULL;
    uint64_t pages = 0;
    if (layout->page_shift != 12 && layout->page_shift != 21)
        reason = "the page size is neither 4096 nor 2097152";
    if (layout->regions == 0)
        reason = "there is no region";
    for (uint32_t i = 0; i < layout->regions && !reason; i++) {
        struct fl_region *region = &layout->region[i];
        reason = check_region(region, 1ULL << layout->page_shift);
        if (!reason)
            reason = check_against(layout, i);
        region->first_page = pages;
        pages += region->bytes >> layout->page_shift;
    }
    if (reason) {
        *ret_reason = reason;
        return -EINVAL;
    }
    layout->pages = pages;
    return 0;
}

uint64_t fl_layout_file_end(const struct fl_layout *layout)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        if (region->offset + region->bytes > end)
            end = region->offset + region->bytes;
    }
    return end;
}

bool fl_layout_page(const struct fl_layout *layout, uint64_t address, uint64_t *ret_page)
{
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        if (address - region->base < region->bytes) {
            *ret_page = region->first_page + ((address - region->base) >> layout->page_shift);
            return true;
        }
    }
    return false;
}

const struct fl_region *fl_layout_region(const struct fl_layout *layout, uint64_t page)
{
    uint32_t i = layout->regions - 1;
    while (i > 0 && page < layout->region[i].first_page)
        i--;
    return &layout->region[i];
}

uint64_t fl_layout_address(const struct fl_layout *layout, uint64_t page)
{
    const struct fl_region *region = fl_layout_region(layout, page);
    return region->base + ((page - region->first_page) << layout->page_shift);
}

uint64_t fl_layout_image_page(const struct fl_layout *layout, uint64_t page)
{
    const struct fl_region *region = fl_layout_region(layout, page);
    uint64_t offset = region->offset + ((page - region->first_page) << layout->page_shift);
    return offset >> FL_PAGE_SHIFT;
}

bool fl_layout_from_image(const struct fl_layout *layout, uint64_t image_page, uint64_t *ret_page,
                          uint64_t *ret_left)
{
    uint64_t offset = image_page << FL_PAGE_SHIFT;
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        if (offset < region->offset || offset - region->offset >= region->bytes)
            continue;
        *ret_page = region->first_page + ((offset - region->offset) >> layout->page_shift);
        *ret_left = (region->bytes - (offset - region->offset)) >> FL_PAGE_SHIFT;
        return true;
    }
    return false;
}

uint64_t fl_region_ranges(const struct fl_region *region, uint64_t *ret_page)
{
    uint64_t start = (region->base + FL_HUGE_BYTES - 1) & ~(FL_HUGE_BYTES - 1);
    uint64_t end = (region->base + region->bytes) & ~(FL_HUGE_BYTES - 1);
    *ret_page = region->first_page + ((start - region->base) >> FL_PAGE_SHIFT);
    return start < end ? (end - start) >> FL_HUGE_SHIFT : 0;
}
