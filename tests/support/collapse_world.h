// SPDX-License-Identifier: Apache-2.0
//
// A world of pages of 2 MiB without a pool (tests of serve --huge): a server with an image that has
// a trace, and a VM that does as it is told. VM 1 was recorded; it is VM 2. For Criterion.
#ifndef FAULTLINE_TESTS_SUPPORT_COLLAPSE_WORLD_H
#define FAULTLINE_TESTS_SUPPORT_COLLAPSE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/world.h"

enum {
    COLLAPSE_BYTES = 32 << 20,
    COLLAPSE_PAGES = COLLAPSE_BYTES / PAGE,
    COLLAPSE_REGIONS = 2,
};

// How the VM is; all zero but for the advice is as usual.
struct collapse_plan {
    int advice;         // MADV_HUGEPAGE ...
    bool gives_back;    // right after the handshake: a page of each region's second range
    bool thp_off;       // it has transparent huge pages switched off for itself (prctl())
    bool boundary;      // a mapping ends in each region's second range
    bool no_rights;     // it has given its capabilities up
    bool template;      // its memory is the image's template, at `socket`
    bool limited;       // it enters the test's memory cgroup first (cgroup.h)
    const char *socket; // NULL: the world's
};

struct collapse_vm {
    struct client client;
    struct collapse_plan plan;
    long long ranges; // aligned ones of 2 MiB that it has
};
// The one that was started last: all that tells a VM something is about this one.
extern struct collapse_vm collapse_vm;

// Skips where the kernel cannot.
void collapse_need(void);
// Every `one_in`th page of the image, in no order, is in its trace.
void collapse_record(struct world *world, uint32_t pages, unsigned one_in);
// A world of COLLAPSE_BYTES that is served, with such a trace.
struct world *collapse_begin(enum world_memory kind, const char *const *options, unsigned one_in);
// The VM is there, and the handshake is sent.
void collapse_start(struct world *world, struct collapse_plan plan);

// Waits until what makes pages of 2 MiB of the VM is in this state.
void collapse_await(struct world *world, long long vm, const char *state);
// A number of VM 2's.
long long collapse_of(const char *key);
// How many pages of 2 MiB the VM has, by its kernel.
long long collapse_huge(void);
// The VM does all that is in `orders`: 'a' touches all and checks it; 'c' the same of what is in
// the trace of every second page; 'r' gives a page of each region's second range back; 'p' may not
// be traced any more.
void collapse_tell(const char *orders);
// The VM has all its bytes, and ends; with collapse_finish() the server, too.
void collapse_end(void);
void collapse_finish(void);

#endif
