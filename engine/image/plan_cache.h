// SPDX-License-Identifier: Apache-2.0
//
// Plans of images that are not open, for the next VM of theirs: to make one of a large trace takes
// tens of milliseconds. It holds 64 MiB of them at most, the ones that were put last, with a
// reference to each. One thread at a time may call these: images.h does so under its lock.
#ifndef FAULTLINE_IMAGE_PLAN_CACHE_H
#define FAULTLINE_IMAGE_PLAN_CACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <urcu/list.h>

#include "engine/image/plan.h"

#define FL_PLAN_CACHE_BYTES (UINT64_C(64) << 20)

struct fl_plan_cache {
    struct cds_list_head plans; // the last one first
    uint64_t bytes;
};

void fl_plan_cache_init(struct fl_plan_cache *plans);
void fl_plan_cache_fini(struct fl_plan_cache *plans);
// Puts the plan of these files of an image and its trace. Takes the reference.
void fl_plan_cache_put(struct fl_plan_cache *plans, const struct stat *image,
                       const struct stat *trace, struct fl_plan *plan);
// Takes the plan of these files out, with its reference; NULL if there is none.
struct fl_plan *fl_plan_cache_take(struct fl_plan_cache *plans, const struct stat *image,
                                   const struct stat *trace);

// True if it is one file, and it was not changed in between.
static inline bool fl_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

#endif
