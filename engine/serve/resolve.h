// SPDX-License-Identifier: Apache-2.0
//
// What the two ways of resolving a page share: 4 KiB (resolve.c) and 2 MiB (resolve_huge.c). The
// way in is fl_resolve(), of fault.h. Owner worker only.
#ifndef FAULTLINE_SERVE_RESOLVE_H
#define FAULTLINE_SERVE_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/park.h"
#include "engine/worker/fault.h"
#include "snapshot/read.h"

// One page on its way to be resolved.
struct fl_want {
    struct fl_shard *shard;
    struct fl_vm *vm;
    uint64_t page;
    uint64_t read_ns; // when its fault was read; 0: nobody faulted
    struct fl_park *park;
    uint32_t pages; // that may be installed at once, from this one on; at least 1
    uint32_t there; // of them, when it was resolved: how many are there
};

// A page that a fault asks for (read just now, and parked nowhere), and those behind it that may be
// installed together with it. *ret_there: how many of them are there now.
enum fl_outcome fl_resolve_some(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                uint32_t pages, uint32_t *ret_there);
// What the image has for at most that many 4 KiB pages of the VM that can be installed in one go:
// the first, and those behind it that are neither there nor removed, and come from one place.
struct fl_run fl_resolve_run(const struct fl_vm *vm, uint64_t page, uint32_t pages);

// Counts a fault that is resolved, and how long it took.
void fl_resolved(struct fl_shard *shard, enum fl_outcome outcome, uint64_t read_ns);

enum fl_outcome fl_resolve_huge(struct fl_want *want);

// What the image has for a page of 2 MiB. UNREAD: *ret_unread is a piece of its map that has to be
// read before that can be said.
enum fl_page_kind { FL_PAGE_BYTES, FL_PAGE_ZERO, FL_PAGE_UNREAD };
enum fl_page_kind fl_vm_page_kind(const struct fl_vm *vm, uint64_t page,
                                  struct fl_frame_id *ret_unread);
static inline bool fl_vm_page_is_zero(const struct fl_vm *vm, uint64_t page)
{
    struct fl_frame_id unread;
    return fl_vm_page_kind(vm, page, &unread) == FL_PAGE_ZERO;
}

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
