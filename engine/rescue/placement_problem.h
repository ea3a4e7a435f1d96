// SPDX-License-Identifier: Apache-2.0
//
// What a layout is found from (placement.h): the ranges of memory, and what their samples say.
#ifndef FAULTLINE_RESCUE_PLACEMENT_PROBLEM_H
#define FAULTLINE_RESCUE_PLACEMENT_PROBLEM_H

#include <stddef.h>
#include <stdint.h>

#include "engine/host/procfs.h"
#include "engine/rescue/memory_samples.h"
#include "engine/rescue/sample_matches.h"

// Owns nothing: all of it stays the caller's.
struct fl_placement_of {
    const struct fl_proc_range *range; // in order, all of one page size
    size_t ranges;
    const struct fl_samples *samples;
    const struct fl_match *match;
    uint64_t image_bytes; // as a multiple of the page size
};

#endif
