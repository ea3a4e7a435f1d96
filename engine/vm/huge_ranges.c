// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/huge_ranges.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/bitmap.h"

static uint64_t count_ranges(const struct fl_layout *layout)
{
    uint64_t count = 0;
    uint64_t page;
    for (uint32_t i = 0; i < layout->regions; i++)
        count += fl_region_ranges(&layout->region[i], &page);
    return count;
}

// How many of the 512 pages from this one on are in the set.
static unsigned pages_in(const uint64_t *set, uint64_t set_pages, uint64_t first)
{
    uint64_t end = first + FL_HUGE_PAGES < set_pages ? first + FL_HUGE_PAGES : set_pages;
    unsigned pages = 0;
    for (uint64_t at = first; at < end;) {
        uint64_t bits = 64 - at % 64;
        uint64_t word = set[at / 64] >> (at % 64);
        if (end - at < bits) {
            bits = end - at;
            word &= (1ULL << bits) - 1;
        }
        pages += (unsigned)__builtin_popcountll(word);
        at += bits;
    }
    return pages;
}

int fl_huge_ranges_init(struct fl_huge_ranges *ranges, const struct fl_layout *layout,
                        const uint64_t *set, uint64_t image_pages, unsigned least)
{
    *ranges = (struct fl_huge_ranges){.count = count_ranges(layout)};
    ranges->range = calloc(ranges->count + 1, sizeof(*ranges->range));
    if (!ranges->range)
        return -ENOMEM;
    uint64_t index = 0;
    for (uint32_t i = 0; i < layout->regions; i++) {
        uint64_t page = 0;
        uint64_t left = fl_region_ranges(&layout->region[i], &page);
        for (; left > 0; left--, index++, page += FL_HUGE_PAGES) {
            unsigned pages = pages_in(set, image_pages, fl_layout_image_page(layout, page));
            bool hot = pages >= least;
            ranges->range[index].pages = (uint16_t)pages;
            ranges->range[index].state = hot ? FL_RANGE_HOT : FL_RANGE_COLD;
            ranges->hot += hot;
        }
    }
    return 0;
}

void fl_huge_ranges_fini(struct fl_huge_ranges *ranges)
{
    free(ranges->range);
    *ranges = (struct fl_huge_ranges){.range = NULL};
}

uint64_t fl_huge_range_page(const struct fl_layout *layout, uint64_t index)
{
    uint64_t page = 0;
    for (uint32_t i = 0; i < layout->regions; i++) {
        uint64_t ranges = fl_region_ranges(&layout->region[i], &page);
        if (index < ranges)
            break;
        index -= ranges;
    }
    return page + index * FL_HUGE_PAGES;
}

bool fl_huge_range_of(const struct fl_layout *layout, uint64_t page, uint64_t *ret_index)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < layout->regions; i++) {
        uint64_t first = 0;
        uint64_t ranges = fl_region_ranges(&layout->region[i], &first);
        if (page >= first && page - first < ranges * FL_HUGE_PAGES) {
            *ret_index = before + (page - first) / FL_HUGE_PAGES;
            return true;
        }
        before += ranges;
    }
    return false;
}

void fl_huge_range_move(struct fl_huge_ranges *ranges, uint64_t index, enum fl_range_state to)
{
    struct fl_huge_range *range = &ranges->range[index];
    ranges->huge -= range->state == FL_RANGE_HUGE;
    ranges->huge += to == FL_RANGE_HUGE;
    range->state = (uint8_t)to;
    range->tries = 0;
}

uint64_t fl_huge_ranges_removed(struct fl_huge_ranges *ranges, const struct fl_layout *layout,
                                uint64_t page, uint64_t count)
{
    uint64_t split = 0;
    uint64_t end = page + count;
    while (page < end) {
        uint64_t index = 0;
        uint64_t next = page + 1;
        if (fl_huge_range_of(layout, page, &index)) {
            next = fl_huge_range_page(layout, index) + FL_HUGE_PAGES;
            if (ranges->range[index].state == FL_RANGE_HUGE) {
                fl_huge_range_move(ranges, index, FL_RANGE_LEFT);
                split++;
            }
        }
        page = next;
    }
    return split;
}

uint64_t fl_huge_ranges_span(const struct fl_huge_ranges *ranges, const struct fl_layout *layout,
                             uint64_t page, uint64_t count, bool *ret_own)
{
    uint64_t index = 0;
    *ret_own = false;
    if (!fl_huge_range_of(layout, page, &index))
        return 1; // few: before the first range of a region, or behind its last one
    uint64_t left = fl_huge_range_page(layout, index) + FL_HUGE_PAGES - page;
    *ret_own = ranges->range[index].state == FL_RANGE_HOT;
    return count < left ? count : left;
}
