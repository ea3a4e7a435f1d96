// SPDX-License-Identifier: Apache-2.0
//
// Whether a VM's memory was made from an image, with each region of it at that place: samples of
// what the VM has are held against the image. Changes nothing in the VM.
//
// The rule. A page that the VM has
//   - and that is byte for byte the image's at its place, and nowhere else in it, speaks for it
//     (`same`);
//   - whose content the image has elsewhere (`elsewhere`), that differs from the image's page
//     (`changed`), or that is not zero where the image is (`written`), speaks against it: a guest
//     writes such pages, and so does every page of another image look;
//   - says nothing if both are zero, or if the image has its content more than once (`silent`).
// A region fits if at least FL_IMAGE_MATCH_ENOUGH pages speak for it, and at least one in
// FL_IMAGE_MATCH_SHARE of those that speak. It contradicts if that many speak, and it does not fit.
// The rest is unknown: too little of it was touched, or (whatever was written there) the image is
// zero all over the region.
// The memory is the image's if a region fits, none contradicts, and at most one region is unknown
// of which the image is not all zero: that one has its place by elimination.
#ifndef FAULTLINE_RESCUE_IMAGE_MATCH_H
#define FAULTLINE_RESCUE_IMAGE_MATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/host/region.h"
#include "engine/rescue/memory_samples.h"
#include "engine/rescue/sample_matches.h"
#include "snapshot/read.h"

enum { FL_IMAGE_MATCH_ENOUGH = 16, FL_IMAGE_MATCH_SHARE = 4 };

enum fl_fit { FL_FIT_UNKNOWN, FL_FIT_YES, FL_FIT_NO };

// Pages of 4 KiB that were looked at.
struct fl_image_match_count {
    uint64_t same;
    uint64_t elsewhere;
    uint64_t changed;
    uint64_t written;
    uint64_t silent;
};

struct fl_image_match {
    struct fl_image_match_count all;
    uint32_t regions;
    struct fl_image_match_count region[FL_REGIONS_MAX];
    enum fl_fit fit[FL_REGIONS_MAX];
    bool zero[FL_REGIONS_MAX]; // the image is zero all over the region
    enum fl_fit verdict;
};

// Pure; any thread. A sample that no region holds is not counted.
void fl_image_match(const struct fl_samples *samples, const struct fl_match *match,
                    const struct fl_layout *layout, const struct fl_image *image,
                    struct fl_image_match *ret_evidence);

// Pages that speak, one way or the other.
uint64_t fl_image_match_speaking(const struct fl_image_match_count *count);

// Two images that both fit: how many samples are the page of the one and not of the other. Both
// with this layout. Blocks on storage. -ENOMEM; errors of reading.
struct fl_image_match_rivals {
    uint64_t image;
    uint64_t other;
};
int fl_image_match_compare(const struct fl_samples *samples, const struct fl_layout *layout,
                           const struct fl_image *image, const struct fl_image *other,
                           struct fl_image_match_rivals *ret_rivals);
// The other is the better one: at least FL_IMAGE_MATCH_ENOUGH pages are its own, and
// FL_IMAGE_MATCH_SHARE times as many as the image's own.
bool fl_image_match_prefers_other(const struct fl_image_match_rivals *rivals);

#endif
