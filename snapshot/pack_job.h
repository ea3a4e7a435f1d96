// SPDX-License-Identifier: Apache-2.0
//
// One run of fl_store_pack(), and how it ends. One thread.
#ifndef FAULTLINE_SNAPSHOT_PACK_JOB_H
#define FAULTLINE_SNAPSHOT_PACK_JOB_H

#include <sys/stat.h>

#include "snapshot/bad_frames.h"
#include "snapshot/pack_run.h"
#include "snapshot/store_dir.h"

struct fl_pack_job {
    struct fl_store *store;
    const struct fl_pack_options *options;
    struct fl_error *error;
    struct stat input_stat;
    struct fl_pack_run run;
    struct fl_index *index;     // NULL: cannot be used
    struct fl_bad_frames known; // frames that were known to be bad when this run began
    struct fl_pack_result result;
};

// Publishes the pack first, then the image, which refers to it. Errors with a sentence.
int fl_pack_publish(struct fl_pack_job *job);
// Gives the image the trace of its parent. No error of this is a failure of packing.
void fl_pack_inherit_trace(struct fl_pack_job *job);
// Adds the pack to the index. No error of this is a failure of packing.
void fl_pack_update_index(struct fl_pack_job *job);
void fl_pack_close_views(struct fl_pack_job *job);
// Says that there is an image of this name already. Returns -EEXIST.
int fl_pack_exists(struct fl_pack_job *job);

#endif
