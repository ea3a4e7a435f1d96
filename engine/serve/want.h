// SPDX-License-Identifier: Apache-2.0
//
// One page on its way: resolve.c and resolve_huge.c find out where its bytes are, and say here what
// is to be done. It is installed, or parked until a frame has come or a pause is over, or failed by
// the VM's policy. Owner worker only.
#ifndef FAULTLINE_SERVE_WANT_H
#define FAULTLINE_SERVE_WANT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/install.h"
#include "engine/serve/outcome.h"
#include "engine/serve/park.h"
#include "snapshot/read.h"

struct fl_want {
    struct fl_shard *shard;
    struct fl_vm *vm;
    uint64_t page;
    uint64_t read_ns; // when its fault was read; 0: no fault asked for it
    struct fl_park *park;
    fl_park_resume *resume; // of the parks that are made for it
    uint32_t pages;         // that may be installed at once, from this one on; at least 1
    uint32_t there;         // of them, when it was resolved: how many are there
    struct fl_run run;      // what the image has for them; .pages of 0: it has to be looked up
    bool replayed;          // the fault is one of FL_STAGE_REPLAY
    bool shared;            // it was in the template already
    bool anew;              // set here: what it was to wait for is there, look for its bytes anew
};

// All of these settle it: it must not be used afterwards, but for what is said of `there` and
// `anew`.

// Puts zeros, or bytes of the frame from this slot on, under so many pages, and settles what is to
// become of its fault.
enum fl_outcome fl_want_install_zeros(struct fl_want *want, uint32_t count);
enum fl_outcome fl_want_install_bytes(struct fl_want *want, const struct fl_frame *frame,
                                      uint32_t slot, uint32_t count);
// The same for one page, which is all of the frame.
enum fl_outcome fl_want_zeros(struct fl_want *want);
enum fl_outcome fl_want_frame(struct fl_want *want, const struct fl_frame *frame);
// Waits for frames in a park of its own; takes the place of one that waited for something else.
enum fl_outcome fl_want_frames(struct fl_want *want, const struct fl_frame_id *ids,
                               uint32_t frames);
// The same for a piece of the image's map. It is the image that has it once it was read.
enum fl_outcome fl_want_map(struct fl_want *want, struct fl_frame_id piece);
// The same for the page of 2 MiB itself.
enum fl_outcome fl_want_huge(struct fl_want *want, uint64_t first_page);
// The caller has tried to install it, with this result; `outcome` is what it is to be if that is
// DONE.
enum fl_outcome fl_want_settle(struct fl_want *want, enum fl_install result,
                               enum fl_outcome outcome);
// It is there.
enum fl_outcome fl_want_done(struct fl_want *want, enum fl_outcome outcome);
// It cannot be had, for this -errno.
enum fl_outcome fl_want_fail(struct fl_want *want, int error);

// --- this settles nothing ---

// The frame: pinned by the park that waited for it, or in the cache; NULL if neither.
const struct fl_frame *fl_want_find(const struct fl_want *want, struct fl_frame_id id);

#endif
