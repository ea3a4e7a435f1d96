// SPDX-License-Identifier: Apache-2.0
//
// The frames of a fill: which ones it will need, and when it needs one no more. Owner worker only.
#ifndef FAULTLINE_AHEAD_FILL_FRAMES_H
#define FAULTLINE_AHEAD_FILL_FRAMES_H

#include "snapshot/read.h"

struct fl_shard;
struct fl_vm;

// Asks for the frames of the pages behind fill.next; of pages of 2 MiB, for some of these.
void fl_fill_ask_ahead(struct fl_shard *shard, struct fl_vm *vm);
void fl_fill_ask_ahead_huge(struct fl_shard *shard, struct fl_vm *vm);
// Bytes of the frame were put into the VM. The pages of an image are not all in the order of their
// frames: it counts as taken when so many other ones were used since.
void fl_fill_took(struct fl_shard *shard, struct fl_vm *vm, struct fl_frame_id id);
// The fill has ended.
void fl_fill_took_all(struct fl_shard *shard, struct fl_vm *vm);

#endif
