// SPDX-License-Identifier: Apache-2.0
//
// Pages of 2 MiB without a pool: what a VM's working set fills to a quarter or more of an aligned
// range of 2 MiB is completed once replay has ended, and its 512 pages are put together to one
// (collapser.h). A guest that reads all over its memory then misses the TLB far less.
//
// The VM pays for it with memory, for the pages that complete a range, and with a millisecond for
// each range in which its own faults wait. So ranges come one by one, the fullest first, only while
// the VM has not faulted for a while, for no more than a quarter of the time, and not while memory
// is short, of the host or within the VM's limit. Nothing that was given back is filled, and a
// range of which half would be zeros stays as it is.
//
// In a range that is to be one page, zeros are pages of their own: the kernel takes no range in
// which the shared page of zeros is (fl_huge_ranges_span()).
#ifndef FAULTLINE_AHEAD_COLLAPSE_H
#define FAULTLINE_AHEAD_COLLAPSE_H

#include <stdint.h>

#include "engine/vm/collapse_state.h"

struct fl_plan;
struct fl_shard;
struct fl_vm;

enum { FL_COLLAPSE_LEAST = FL_HUGE_PAGES / 4 };

void fl_collapse_init(struct fl_vm *vm);
// Owner only. The VM's trace was seen; NULL: there is none. The caller keeps its reference.
void fl_collapse_begin(struct fl_shard *shard, struct fl_vm *vm, const struct fl_plan *plan);
// Owner only. FL_VM_STATE_HUGE was changed by an order: begins, once more if it had ended, or ends.
void fl_collapse_follow(struct fl_shard *shard, struct fl_vm *vm, const struct fl_plan *plan);
// Owner only. For good: the VM is gone, or is filled anyway.
void fl_collapse_end(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. It stops here, and goes on with the VM's next owner.
void fl_collapse_suspend(struct fl_shard *shard, struct fl_vm *vm);
void fl_collapse_resume(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. A capture has ended, which may have split what was put together.
void fl_collapse_again(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. The guest has given pages back.
void fl_collapse_removed(struct fl_vm *vm, uint64_t page, uint64_t count);

// --- between collapse.c and collapse_fill.c ---

// The range that is next stays as it is, for good.
void fl_collapse_leave(struct fl_vm *vm);

enum fl_range_fill {
    FL_RANGE_FULL,
    FL_RANGE_FILLING, // a part was put there: come again
    FL_RANGE_WAITS,   // the task waits, or pauses, or the VM is gone
    FL_RANGE_NOT,     // it is not to be filled
};
// One slice of the range that begins with this page.
enum fl_range_fill fl_range_fill(struct fl_shard *shard, struct fl_vm *vm, uint64_t page);

#endif
