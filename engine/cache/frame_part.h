// SPDX-License-Identifier: Apache-2.0
//
// What a load (frame_load.h) consists of: its parts, the pieces of a page of 2 MiB that each part
// brings, and how the bytes of one part get into their place.
#ifndef FAULTLINE_CACHE_FRAME_PART_H
#define FAULTLINE_CACHE_FRAME_PART_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/io_pool.h"
#include "engine/base/mailbox.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_table.h"
#include "snapshot/read.h"

enum { FL_LOAD_HELPERS = 4 };

struct fl_part {
    struct fl_io_job retry; // while it is read again after a pause
    struct fl_load *load;
    struct fl_frame_id id;
    _Atomic bool taken;
    unsigned attempts;           // of the thread that took it
    unsigned looks;              // likewise, for what is not packed yet
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
//    the frame. Parts that are being brought, or wait for another attempt, live by it: none of them
//    has ended;
//  - the mail to the read-ahead, for what is asked for ahead: taken before the frame is published,
//    given up by the read-ahead's thread when it has looked at it;
//  - each part in the read-ahead's queue or in one of its extents: taken by that thread while it
//    has the one of the mail, given up by it or by the helper that has brought the part;
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
    struct fl_frame_id failed;  // of the part that it is about; written by the thread that set it
    atomic_bool hurried;        // helper[0] was submitted
    _Atomic uint32_t left;      // parts not yet brought, and 1 while they are not yet known
    _Atomic uint32_t next_part; // for helpers to look at
    unsigned attempts;          // to plan
    unsigned looks;             // for what is not packed yet
    struct fl_mail mail;        // to the read-ahead
    struct fl_load *next;       // asked for by the same call
    struct fl_load_helper helper[FL_LOAD_HELPERS];
    uint32_t parts;
    struct fl_part *part; // &only, or allocated
    struct fl_piece *piece;
    struct fl_part only;
};

// The thread that makes the plan of a page of 2 MiB. Takes its memory, writes the zeros in it, and
// finds its parts, whose `retry` is left to the caller. -EAGAIN: the image's map is not read there,
// and `may_read` is false; -ENOMEM, errors of reading: nothing has changed.
int fl_load_find_parts(struct fl_load *load, bool may_read);

// The thread that has taken the part. Once: from its stored bytes, or NULL: reads them, and blocks
// on storage. -EBADMSG, -ENOMEM, errors of reading.
int fl_part_attempt(const struct fl_part *part, const void *stored);

#endif
