// SPDX-License-Identifier: Apache-2.0
//
// What a file door is given: constant from fl_files_new() on.
#ifndef FAULTLINE_FILES_FILES_OPTIONS_H
#define FAULTLINE_FILES_FILES_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/files/files_counts.h"

struct fl_cache;
struct fl_images;
struct fl_io_pool;
struct fl_keeper_link;
struct fl_life_table;
struct fl_loop;
struct fl_mailbox;
struct fl_store_place;

struct fl_files_options {
    struct fl_images *images;
    struct fl_store_place *place;
    struct fl_keeper_link *keeper_link;
    struct fl_io_pool *io_pool;
    struct fl_cache *cache;
    struct fl_mailbox *control;
    struct fl_loop *loop; // the control thread's
    struct fl_life_table *life;
    struct fl_files_counts *counts; // in the ledger
    unsigned life_slot;             // of the files' thread
    uint64_t read_timeout_ms;       // after which a page is given up
    uid_t uid;                      // of files; (uid_t)-1: of the process
    gid_t gid;
    mode_t mode;
    // What is read into the page cache ahead (files_warm.c).
    bool warm;
    const char *path;      // where the files are mounted, by the keeper's working directory
    const char *store;     // likewise
    uint64_t warm_bytes;   // of an image at most; 0: no limit
    unsigned warm_reserve; // percent of the host's memory that is left alone
    // Control thread: the connection is gone. The keeper's record is dropped already.
    void (*gone)(void *arg);
    // Control thread: the connection is there, and no path leads to it any more; or one does again.
    void (*hidden)(void *arg, bool hidden);
    void *arg;
};

#endif
