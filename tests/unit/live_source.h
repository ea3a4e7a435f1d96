// SPDX-License-Identifier: Apache-2.0
//
// A live source for the tests of packing: pages of all kinds, which come in random order from a
// thread of their own. What must not be read has bytes that are wrong.
#ifndef FAULTLINE_TESTS_LIVE_SOURCE_H
#define FAULTLINE_TESTS_LIVE_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "snapshot/store.h"

struct live_source {
    struct fl_pack_live live;
    uint64_t pages;
    int expected_fd;   // a file of what the image has to be
    uint8_t *expected; // the same, mapped
    uint8_t *buffer;   // the buffer, mapped
    uint8_t *kind;     // enum fl_live_page, of each page
    uint64_t *order;   // in which pages come
    pthread_t thread;
    atomic_bool started;
    pthread_mutex_t lock;
    pthread_cond_t came;
    // lock covers these.
    bool *done;         // of each page
    bool *read;         // of each page: it was consumed
    unsigned twice;     // pages that were consumed twice, or before they were awaited
    uint64_t awaited;   // pages, from the first on
    bool stopped;       // stop() was called
    unsigned published; // calls
    uint8_t content_id[32];
    struct fl_error error; // of packing
    // What the test may set before packing.
    uint64_t fail_at;                          // page: await of its chunk fails
    int fail_with;                             // negative errno; 0: it does not
    bool replaces;                             // an image of the same name
    bool in_turn;                              // a chunk comes when those before were consumed
    uint64_t missing;                          // a page that never comes; UINT64_MAX: none
    void (*before)(void *arg, uint64_t first); // called by await; may be NULL
    void *before_arg;
    // Of an image on offer, set by live_pack_offered():
    atomic_bool released; // a chunk comes when it is hurried, or when all are released
    atomic_bool may_settle;
    atomic_bool offered;
    atomic_bool packed;           // set by the test
    atomic_uint_fast64_t hurried; // looks that hurried a chunk which was not there
    struct fl_offer *offer;
};

// What the pages of a child are, of 256: the rest is as in the parent.
struct live_mix {
    unsigned data, zero;
    unsigned run; // the longest run of pages of one kind
};

// Makes a source of `bytes` bytes that has, where it is as its parent, the bytes of the file
// `parent` (NULL: it has none). What the image has to be is written to the file `expected`.
int live_make(struct live_source *source, const char *parent, const char *expected, uint64_t bytes,
              struct live_mix mix, uint64_t *state);
void live_free(struct live_source *source);

// Packs the source; NULL: no parent. threads may be 0.
int live_pack(struct live_source *source, const char *store, const char *name, const char *parent,
              const uint8_t *parent_content_id, unsigned threads,
              struct fl_pack_result *ret_result);
// Packs it as an image on offer under this name and others, on demand. The caller ends the offer,
// source->offer, in any case. `with` may be NULL.
int live_pack_offered(struct live_source *source, const char *store, const char *const *names,
                      size_t count, const char *parent, const uint8_t *parent_content_id,
                      const struct fl_companion_file *with, struct fl_pack_result *ret_result);

#endif
