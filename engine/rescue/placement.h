// SPDX-License-Identifier: Apache-2.0
//
// Which part of an image each piece of a VM's memory is, found by what is in it. Pure functions.
//
// A page whose content the image has exactly once says by how much memory and image are shifted
// against each other there. Where the samples of a range agree on one shift, the range has its
// place. Where they do not, the range is several regions that lie side by side, in any order: the
// lengths of the pieces follow from the ranges' ends, the shifts, and that the pieces fill the
// image (Firecracker's memory file is its regions, one after the other). A piece without a sample
// that tells (nothing of it was touched) goes where the image has room for it, if that is one
// place.
#ifndef FAULTLINE_RESCUE_PLACEMENT_H
#define FAULTLINE_RESCUE_PLACEMENT_H

#include "engine/host/region.h"
#include "engine/rescue/placement_problem.h"

// -ENOENT: nothing tells, or what tells is at odds with itself; -ENOTUNIQ: more than one layout
// would do; -E2BIG: it would need too many regions; -EINVAL: pages that are neither 4 KiB nor
// 2 MiB, or of two sizes.
int fl_placement_find(const struct fl_placement_of *of, struct fl_layout *ret_layout);

#endif
