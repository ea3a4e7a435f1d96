// SPDX-License-Identifier: Apache-2.0
//
// Runs the stages of packing, from the memory file or the live source, and the companions, to a
// pack and an image that are not published yet.
#ifndef FAULTLINE_SNAPSHOT_PACK_RUN_H
#define FAULTLINE_SNAPSHOT_PACK_RUN_H

#include <stdatomic.h>

#include "snapshot/dedup.h"
#include "snapshot/encoder.h"
#include "snapshot/identity.h"
#include "snapshot/image_writer.h"
#include "snapshot/index.h"
#include "snapshot/live.h"
#include "snapshot/offer.h"
#include "snapshot/pack_order.h"
#include "snapshot/pack_parent.h"
#include "snapshot/pack_with.h"
#include "snapshot/pack_writer.h"
#include "snapshot/share_check.h"
#include "snapshot/store.h"

struct fl_pack_worker {
    struct fl_hasher *hasher;
    struct fl_encoder *encoder;
    struct fl_index_view *view; // one of the run's; NULL: no index
    struct fl_share_room *room;
    struct fl_parent_identities *identities; // NULL: no parent
};

// Which file an error is about, for the error's sentence.
enum fl_pack_fault {
    FL_FAULT_NONE,
    FL_FAULT_INPUT,
    FL_FAULT_SHRANK,
    FL_FAULT_AWAIT,
    FL_FAULT_PARENT,
    FL_FAULT_COMPANION,
    FL_FAULT_OUTPUT,
};

struct fl_pack_run {
    int input_fd;                    // the memory file
    const struct fl_pack_live *live; // NULL: the memory file
    struct fl_parent *parent;        // of the live source; NULL: none
    struct fl_offer *offer;          // of the live source; NULL: it is not on offer
    struct fl_pack_with with;
    uint64_t input_bytes;
    uint64_t input_pages;
    unsigned threads;
    struct fl_pack_worker *workers; // one for each thread
    struct fl_index_view **views;   // the workers share them
    unsigned views_count;
    struct fl_share_check *check; // any thread
    struct fl_pack_writer *pack;
    struct fl_image_writer *image;

    // Used by the stage `next` only.
    uint64_t next_page;
    double last_page_at; // wall: when the live source's last pages had come
    bool settled;        // of an image on offer: it may be published
    // Used by the stage `place` only, which is ordered: one thread at a time.
    struct fl_dedup *dedup;
    struct fl_dedup_counts counts; // of the pages of memory
    // Of an image on offer the stage `write` uses these three.
    struct fl_hasher *content;
    struct fl_hasher *parent_content; // of the pages of the parent, to compare it with its own
    struct fl_identity zeros[FL_CHUNK_PAGES]; // of zero pages, for the content id of holes
    // Used by the stage `write` only.
    struct fl_pack_order *order; // of an image on offer
    uint64_t data_bytes;
    double hash_seconds, check_seconds, compress_seconds, write_seconds;

    atomic_uint_fast64_t done; // bytes of input, for progress
    atomic_int fault;          // enum fl_pack_fault: the first one
    atomic_bool index_broken;  // a view has found the index damaged
};

// Remembers which file the first error was about; returns the error.
int fl_pack_failed(struct fl_pack_run *run, enum fl_pack_fault what, int error);
// Runs all stages. The caller finishes `content`, the hash that becomes the content id.
int fl_pack_run(struct fl_pack_run *run, const struct fl_progress *progress);

#endif
