// SPDX-License-Identifier: Apache-2.0
//
// Streaming the working set of an image into a VM ahead of its touches, in the order of the image's
// trace: frames are asked for far ahead, and installed as they come, in slices after demand faults
// (task.h). What cannot be had is left to the fault that may come for it: replay poisons nothing,
// kills no VM, and fills no page that the guest gave back.
#ifndef FAULTLINE_AHEAD_REPLAY_H
#define FAULTLINE_AHEAD_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/replay_state.h"

struct fl_plan;
struct fl_vm;
struct fl_shard;

void fl_replay_init(struct fl_vm *vm);
// Owner only. Takes the plan, NULL: there is none.
void fl_replay_begin(struct fl_shard *shard, struct fl_vm *vm, struct fl_plan *plan);
// Owner only. It ends here, if it runs: the VM is gone, or will be filled anyway.
void fl_replay_end(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. It stops here, and goes on with the VM's next owner.
void fl_replay_suspend(struct fl_shard *shard, struct fl_vm *vm);
void fl_replay_resume(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. Faults came for the page, and those behind it, all of one region. True if the first
// one is of a working set that is being streamed in.
bool fl_replay_fault(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t pages);

// --- between replay.c, replay_small.c and replay_huge.c ---

// True if something was done; the replay's end is `next` having come to `end`.
bool fl_replay_slice_small(struct fl_shard *shard, struct fl_vm *vm);
// A fault came for the page: slices grow if it is one of those that come next anyway, and shrink if
// it is not.
void fl_replay_pace(struct fl_vm *vm, uint64_t image_page);
bool fl_replay_slice_huge(struct fl_shard *shard, struct fl_vm *vm);
int fl_replay_begin_huge(struct fl_shard *shard, struct fl_vm *vm); // -ENOMEM
// How many pages of 4 KiB ahead of the next one frames are to be asked for.
uint64_t fl_replay_distance(const struct fl_shard *shard);

#endif
