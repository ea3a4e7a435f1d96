// SPDX-License-Identifier: Apache-2.0
//
// A page of a VM, to where its bytes are: into the VM by install.h, or into a park until they are
// there. Pages of 4 KiB are resolved in resolve.c, those of 2 MiB in resolve_huge.c. Owner worker
// only.
#ifndef FAULTLINE_SERVE_RESOLVE_H
#define FAULTLINE_SERVE_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/outcome.h"
#include "engine/serve/park.h"
#include "snapshot/read.h"

// A page that a fault asks for (read just now, and parked nowhere), and those behind it that may be
// installed together with it. `run`: what the image has for these, as fl_vm_run() said it just now;
// .pages of 0: it was not asked. *ret_there: how many of the pages are there now.
enum fl_outcome fl_resolve_some(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                uint32_t pages, const struct fl_run *run, uint32_t *ret_there);
// A page that no thread waits for, as far as is known.
enum fl_outcome fl_resolve_ahead(struct fl_shard *shard, struct fl_vm *vm, uint64_t page);
// The page of a park, which is ended when the page is resolved (fl_park_resume).
void fl_resolve_parked(struct fl_shard *shard, struct fl_park *park);
// A thread waits for a page that only a fill had asked for.
void fl_resolve_hurry(struct fl_vm *vm, uint64_t page);

// Counts a fault that is resolved, and how long it took.
void fl_resolved(struct fl_shard *shard, enum fl_outcome outcome, uint64_t read_ns);

// --- between resolve.c and resolve_huge.c ---

// One page on its way to be resolved.
struct fl_want {
    struct fl_shard *shard;
    struct fl_vm *vm;
    uint64_t page;
    uint64_t read_ns; // when its fault was read; 0: no fault asked for it
    struct fl_park *park;
    uint32_t pages;    // that may be installed at once, from this one on; at least 1
    uint32_t there;    // of them, when it was resolved: how many are there
    struct fl_run run; // what the image has for them; .pages of 0: it has to be looked up
};

enum fl_outcome fl_resolve_huge(struct fl_want *want);

// Puts zeros, or the frame, under the page, and settles what is to become of its fault.
enum fl_outcome fl_want_zeros(struct fl_want *want);
enum fl_outcome fl_want_frame(struct fl_want *want, const struct fl_frame *frame);
// Waits for frames in a park of its own; takes the place of one that waited for something else.
enum fl_outcome fl_want_frames(struct fl_want *want, const struct fl_frame_id *ids,
                               uint32_t frames);
// The same for a piece of the image's map. It is the image that has it once it was read.
enum fl_outcome fl_want_map(struct fl_want *want, struct fl_frame_id piece);
// The same for the page of 2 MiB itself.
enum fl_outcome fl_want_huge(struct fl_want *want, uint64_t first_page);
// The frame: pinned by the park that waited for it, or in the cache; NULL if neither.
const struct fl_frame *fl_want_find(const struct fl_want *want, struct fl_frame_id id);

#endif
