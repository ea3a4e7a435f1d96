// SPDX-License-Identifier: Apache-2.0
//
// Bringing a frame, or a page of 2 MiB, into memory.
//
// A load has parts: a frame is one, a page of 2 MiB has one for each frame that it takes bytes
// from. Each part is brought by whoever takes it first, once: by the reader threads when somebody
// waits for it, or by the read-ahead when its extent has come. So what is asked for ahead can be
// hurried at any time. The last part that is brought ends the load.
//
// A frame outlives its load's last part.
#ifndef FAULTLINE_CACHE_FRAME_LOAD_H
#define FAULTLINE_CACHE_FRAME_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/io_pool.h"
#include "engine/cache/frame_cache_internal.h"
#include "snapshot/read.h"

enum { FL_LOAD_HELPERS = 4 };

struct fl_part {
    struct fl_io_job retry; // while it is read again after a pause
    struct fl_load *load;
    struct fl_frame_id id;
    _Atomic bool taken;
    unsigned attempts;           // of who took it
    uint16_t first_piece;        // of a page of 2 MiB
    struct fl_part *next;        // the read-ahead's queue
    struct fl_frame_place place; // likewise
};

// Where pages of a part's frame go in a page of 2 MiB.
struct fl_piece {
    uint16_t to;
    uint16_t slot;
    uint16_t pages;
    uint16_t next; // of the same part; FL_NO_PIECE
};
enum { FL_NO_PIECE = UINT16_MAX };

// Moves: NONE -> BUSY -> DONE, and BUSY -> NONE for want of memory.
enum fl_load_plan { FL_PLAN_NONE, FL_PLAN_BUSY, FL_PLAN_DONE };

struct fl_load_helper {
    struct fl_io_job job;
    struct fl_load *load;
};

// References (`refs`), each held by one of these and given up by it with fl_load_unref():
//  - the loading itself, from fl_load_new() until the thread that ends the last part has finished
//  the
//    frame. Parts that are being brought, or wait for another attempt, live by it: none of them has
//    ended;
//  - the mail to the read-ahead, for what is asked for ahead: taken before the frame is published,
//    given up by the read-ahead's thread when it has looked at it;
//  - each part in the read-ahead's queue or in one of its extents: taken by that thread while it
//  has
//    the one of the mail, given up by it or by the helper that has brought the part;
//  - each helper that was submitted to the readers: taken before that, given up at its end.
// A thread with none may only take one: as a reader that found the frame LOADING, by fl_load_ref(),
// which fails once there are none. So the memory goes by RCU. The image's reference is given up
// with the last one.
struct fl_load {
    struct rcu_head rcu;
    struct fl_cache *cache;
    struct fl_frame *frame;
    struct fl_image *image; // a reference
    _Atomic int refs;
    _Atomic int plan;           // enum fl_load_plan; parts are there when it is DONE
    _Atomic int error;          // the first
    atomic_bool hurried;        // helper[0] was submitted
    _Atomic uint32_t left;      // parts not yet brought, and 1 while they are not yet known
    _Atomic uint32_t next_part; // for helpers to look at
    unsigned attempts;          // to plan
    struct fl_mail mail;        // to the read-ahead
    struct fl_load *next;       // asked for by the same call
    struct fl_load_helper helper[FL_LOAD_HELPERS];
    uint32_t parts;
    struct fl_part *part; // &only, or allocated
    struct fl_piece *piece;
    struct fl_part only;
};

// For a frame that is not yet published, with the loading's own reference.
// For a frame of a pack `id` says which; NULL: a page of 2 MiB, by its key. NULL without memory.
struct fl_load *fl_load_new(struct fl_frame *frame, struct fl_image *image,
                            const struct fl_frame_id *id);
// Before it was published.
void fl_load_discard(struct fl_load *load);

// RCU reader, on the load of a frame that it has seen LOADING: false if that is over.
bool fl_load_ref(struct fl_load *load);
// Pool or read-ahead thread, RCU offline.
void fl_load_unref(struct fl_load *load);

// RCU reader, never blocks: has what is not yet taken read at once, ahead of all that nobody waits
// for. True if this call did it.
bool fl_load_hurry(struct fl_load *load);

// The read-ahead. Finds the parts; false if somebody else does, or there is no memory: then they
// are the reader threads' now.
bool fl_load_plan(struct fl_load *load);
// Pool thread. Brings the part if nobody did or does: from its stored bytes, or NULL: reads it.
// True if this call did it.
bool fl_part_bring(struct fl_part *part, const void *stored);
// The read-ahead ends: fails the part if nobody brings it.
void fl_part_cancel(struct fl_part *part);

#endif
