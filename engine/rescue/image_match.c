// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/image_match.h"

#include <stddef.h>

// --- one sample ---

static uint64_t page_of_sample(const struct fl_region *region, const struct fl_sample *sample)
{
    return (region->offset + (sample->address - region->base)) >> FL_PAGE_SHIFT;
}

// The number of the region that holds it; the count of regions if none does.
static uint32_t region_of_sample(const struct fl_layout *layout, const struct fl_sample *sample)
{
    for (uint32_t i = 0; i < layout->regions; i++) {
        if (sample->address - layout->region[i].base < layout->region[i].bytes)
            return i;
    }
    return layout->regions;
}

// Beyond its end an image is zero: its last page may be a part of one of 2 MiB.
static bool image_is_zero(const struct fl_image *image, uint64_t page)
{
    return page >= fl_image_pages(image) || fl_image_run(image, page, 1).zero;
}

static void count_sample(struct fl_image_match_count *count, const struct fl_sample *sample,
                         const struct fl_match *match, const struct fl_image *image, uint64_t page)
{
    bool zero = image_is_zero(image, page);
    if (sample->zero) {
        count->silent += zero;
        count->changed += !zero;
    } else if (match->places == 1) {
        count->same += match->page == page;
        count->elsewhere += match->page != page;
    } else if (match->places > 1) {
        count->silent++;
    } else {
        count->written += zero;
        count->changed += !zero;
    }
}

// --- the rule ---

uint64_t fl_image_match_speaking(const struct fl_image_match_count *count)
{
    return count->same + count->elsewhere + count->changed + count->written;
}

static enum fl_fit fit_of(const struct fl_image_match_count *count, bool zero)
{
    uint64_t speaking = fl_image_match_speaking(count);
    if (zero || speaking < FL_IMAGE_MATCH_ENOUGH)
        return FL_FIT_UNKNOWN;
    return count->same >= FL_IMAGE_MATCH_ENOUGH && count->same * FL_IMAGE_MATCH_SHARE >= speaking
               ? FL_FIT_YES
               : FL_FIT_NO;
}

static enum fl_fit verdict_of(const struct fl_image_match *match)
{
    uint32_t fits = 0;
    uint32_t unknown = 0;
    for (uint32_t i = 0; i < match->regions; i++) {
        if (match->fit[i] == FL_FIT_NO)
            return FL_FIT_NO;
        fits += match->fit[i] == FL_FIT_YES;
        unknown += match->fit[i] == FL_FIT_UNKNOWN && !match->zero[i];
    }
    return fits > 0 && unknown <= 1 ? FL_FIT_YES : FL_FIT_UNKNOWN;
}

static bool region_is_zero(const struct fl_region *region, const struct fl_image *image)
{
    uint64_t page = region->offset >> FL_PAGE_SHIFT;
    uint64_t end = (region->offset + region->bytes) >> FL_PAGE_SHIFT;
    while (page < end && page < fl_image_pages(image)) {
        struct fl_run run = fl_image_run(image, page, UINT32_MAX);
        if (!run.zero)
            return false;
        page += run.pages;
    }
    return true;
}

static void add_count(struct fl_image_match_count *sum, const struct fl_image_match_count *count)
{
    sum->same += count->same;
    sum->elsewhere += count->elsewhere;
    sum->changed += count->changed;
    sum->written += count->written;
    sum->silent += count->silent;
}

void fl_image_match(const struct fl_samples *samples, const struct fl_match *match,
                    const struct fl_layout *layout, const struct fl_image *image,
                    struct fl_image_match *ret_evidence)
{
    struct fl_image_match found = {.regions = layout->regions};
    for (size_t i = 0; i < samples->count; i++) {
        const struct fl_sample *sample = &samples->sample[i];
        uint32_t region = region_of_sample(layout, sample);
        if (region < layout->regions)
            count_sample(&found.region[region], sample, &match[i], image,
                         page_of_sample(&layout->region[region], sample));
    }
    for (uint32_t i = 0; i < layout->regions; i++) {
        found.zero[i] = region_is_zero(&layout->region[i], image);
        found.fit[i] = fit_of(&found.region[i], found.zero[i]);
        add_count(&found.all, &found.region[i]);
    }
    found.verdict = verdict_of(&found);
    *ret_evidence = found;
}

// --- two images ---

static bool is_same_place(const struct fl_run *one, const struct fl_run *other)
{
    return one->zero == other->zero &&
           (one->zero || (one->id.pack == other->id.pack && one->id.frame == other->id.frame &&
                          one->slot == other->slot));
}

// 0 and whether the page is the one that was sampled, or an error of reading.
static int compare_page(struct fl_page_reader *reader, const struct fl_run *run,
                        const struct fl_sample *sample, bool *ret_is)
{
    const uint8_t *page = NULL;
    int error = run->zero ? 0 : fl_page_reader_get(reader, run, &page);
    *ret_is = run->zero ? sample->zero : page && fl_sample_hash(page) == sample->hash;
    return error;
}

// Pages that both images have are not read.
static int compare_sample(struct fl_page_reader *one, struct fl_page_reader *other,
                          const struct fl_sample *sample, uint64_t page,
                          struct fl_image_match_rivals *rivals)
{
    bool is_one = false;
    bool is_other = false;
    if (page >= fl_image_pages(one->image) || page >= fl_image_pages(other->image))
        return 0;
    struct fl_run run = fl_image_run(one->image, page, 1);
    struct fl_run other_run = fl_image_run(other->image, page, 1);
    if (is_same_place(&run, &other_run))
        return 0;
    int error = compare_page(one, &run, sample, &is_one);
    if (!error)
        error = compare_page(other, &other_run, sample, &is_other);
    rivals->image += is_one && !is_other;
    rivals->other += is_other && !is_one;
    return error;
}

int fl_image_match_compare(const struct fl_samples *samples, const struct fl_layout *layout,
                           const struct fl_image *image, const struct fl_image *other,
                           struct fl_image_match_rivals *ret_rivals)
{
    struct fl_page_reader readers[2] = {0};
    struct fl_image_match_rivals rivals = {0};
    int error = fl_page_reader_open(&readers[0], image);
    if (!error)
        error = fl_page_reader_open(&readers[1], other);
    for (size_t i = 0; i < samples->count && !error; i++) {
        uint32_t region = region_of_sample(layout, &samples->sample[i]);
        if (region < layout->regions)
            error = compare_sample(&readers[0], &readers[1], &samples->sample[i],
                                   page_of_sample(&layout->region[region], &samples->sample[i]),
                                   &rivals);
    }
    fl_page_reader_close(&readers[0]);
    fl_page_reader_close(&readers[1]);
    if (!error)
        *ret_rivals = rivals;
    return error;
}

bool fl_image_match_prefers_other(const struct fl_image_match_rivals *rivals)
{
    return rivals->other >= FL_IMAGE_MATCH_ENOUGH &&
           rivals->other >= rivals->image * FL_IMAGE_MATCH_SHARE;
}
