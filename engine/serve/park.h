// SPDX-License-Identifier: Apache-2.0
//
// Faults that cannot be resolved now: they wait for frames, or for a REMOVE in flight to end.
//
// Owner worker only. A park that waits for frames holds a waiter per frame; frames that have come
// are pinned until it ends. When the VM is gone first, the park is orphaned: it frees itself when
// the last waiter has come back.
#ifndef FAULTLINE_SERVE_PARK_H
#define FAULTLINE_SERVE_PARK_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/cache/frame_cache.h"
#include "engine/vm/park_state.h"

struct fl_park;
struct fl_shard;
struct fl_vm;

// Called when the frames of a park have come, when its pause is over, or when it has failed: tries
// its page again, which ends the park or has it wait once more.
typedef void fl_park_resume(struct fl_shard *shard, struct fl_park *park);

// References: it is its VM's until fl_park_end(), and its waiters' that are not yet back
// (`outstanding`); the last of the two frees it. Each waiter that has come back holds the pin of
// its frame until then. All in the worker's thread: no count needs to be atomic.
struct fl_park {
    struct cds_list_head in_vm;    // bucket of fl_parks
    struct cds_list_head in_retry; // the worker's retry list, or linked to itself
    struct fl_shard *shard;
    struct fl_vm *vm; // NULL: orphaned
    uint64_t page;
    fl_park_resume *resume;
    uint32_t pages;       // that may be installed together with it, itself included
    uint64_t read_ns;     // when its first message was read; 0: asked for by a fill, not a fault
    bool replayed;        // its fault is one of FL_STAGE_REPLAY
    uint64_t deadline_ns; // then it fails
    uint64_t retry_ns;
    unsigned attempts;
    int starved;    // what for want of memory it was not resolved: -ENOSPC the page could not
                    // be put there, -ENOMEM its frame could not be asked for; 0 neither
    uint8_t waited; // bits of enum fl_waited: for what it waited so far
    int error;      // of a frame that could not be read, or 0
    struct fl_frame_id failed; // which one; pack 0: not known
    uint32_t outstanding;      // waiters not yet back
    uint32_t frames;
    struct fl_waiter waiter[]; // [frames]; .frame is pinned where not NULL
};

// When something that begins to wait now is given up.
uint64_t fl_park_deadline(const struct fl_shard *shard);

void fl_parks_init(struct fl_parks *parks);
struct fl_park *fl_park_find(struct fl_vm *vm, uint64_t page);

// A park for the page with room for that many frames, linked into the VM; NULL if there is no
// memory. As of a page that no thread waits for: its read_ns is 0.
struct fl_park *fl_park_new(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                            uint32_t frames, fl_park_resume *resume);
// Wants one more frame for it.
int fl_park_want(struct fl_park *park, struct fl_frame_id id);
// Or the page itself, of 2 MiB: its first page in the image.
int fl_park_want_huge(struct fl_park *park, uint64_t first_page);
// The page of 2 MiB that it waited for, pinned; NULL if it waited for something else, as for a
// piece of the map.
const struct fl_frame *fl_park_huge(const struct fl_park *park);
// A frame that it waited for, pinned; NULL if it is not among them.
const struct fl_frame *fl_park_frame(const struct fl_park *park, struct fl_frame_id id);
// Tries it again after a pause that grows.
void fl_park_retry(struct fl_park *park);
// Its fault is resolved, or its VM gone.
void fl_park_end(struct fl_park *park);

// Resolves what is due on the worker's retry list; true if there was any.
bool fl_parks_run_due(struct fl_shard *shard);
// When the first is due; FL_NEVER if none.
uint64_t fl_parks_next_due(const struct fl_shard *shard);
// Fails those of the VM whose deadline has passed.
void fl_parks_expire(struct fl_vm *vm, uint64_t now);
// When the oldest fault that waits for storage was read; FL_NEVER if none does.
uint64_t fl_parks_oldest(const struct fl_vm *vm);
// The same, whatever it waits for.
uint64_t fl_parks_first(const struct fl_vm *vm);
// Ends all of the VM.
void fl_parks_end_all(struct fl_vm *vm);

#endif
