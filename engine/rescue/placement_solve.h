// SPDX-License-Identifier: Apache-2.0
//
// Finds the lengths of the pieces of memory that placement.c has made of samples. Pure functions.
#ifndef FAULTLINE_RESCUE_PLACEMENT_SOLVE_H
#define FAULTLINE_RESCUE_PLACEMENT_SOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/host/region.h"
#include "engine/rescue/placement_problem.h"

// Memory, within one range, that is one part of the image.
struct fl_piece {
    size_t range;
    bool blank;     // no sample of it tells
    uint64_t shift; // offset in the image less address, modulo 2^64; not of a blank one
    uint64_t first; // address of its first sample that tells
    uint64_t last;  // and of its last
    uint64_t start; // once solved: its address, and its length in bytes
    uint64_t bytes;
};

// At most this many are solved for; a VMM has up to four regions, and one that can be plugged in.
enum { FL_PIECES_MAX = 12 };

// Lays out ranges that may be of several pieces each: finds where each begins and ends, and where
// blank ones belong. The pieces come in the order of memory; a range may have none. 0 or -errno as
// fl_placement_find().
int fl_placement_solve(const struct fl_placement_of *of, const struct fl_piece *piece,
                       size_t pieces, struct fl_layout *ret_layout);

// Pieces in the order of memory, all of them with their shift, start and length, as a layout. Those
// that follow each other with the same shift are one region, over a hole in memory too if
// `over_holes`. -EINVAL: they overlap, or leave the image; -E2BIG.
int fl_placement_layout(const struct fl_placement_of *of, const struct fl_piece *piece,
                        size_t pieces, bool over_holes, struct fl_layout *ret_layout);

#endif
