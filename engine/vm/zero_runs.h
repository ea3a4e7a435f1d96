// SPDX-License-Identifier: Apache-2.0
//
// How much zero memory around a page to install together with it: pure policy, no I/O.
//
// A guest that works on after its restore takes memory that its image knows as zeros, or that it
// has given back: no trace knows these pages, and each would be a fault. So a fault there brings a
// *run*: what is zero and absent around it, within an aligned block of `level` pages. The level
// begins at one page and doubles when a run turns out to be used, up to FL_ZERO_RUN_MOST. It is the
// VM's and not a sweep's, as guests take their memory in blocks, in no order, and sweep each of
// them up or down.
//
// A run is proven as far as a look at the VM's memory shows that its pages were written to, or,
// where that cannot be seen, when a fault comes at one of its two edges. What is not proven, and
// what of it will never be, is bounded by FL_ZERO_RUN_MOST plus an eighth of what was proven: a
// guest that does not fill memory gets no more than 2 MiB in vain. Such a page costs no memory: it
// is the shared zero page.
//
// Owner worker only.
#ifndef FAULTLINE_VM_ZERO_RUNS_H
#define FAULTLINE_VM_ZERO_RUNS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    FL_ZERO_RUN_MOST = 512, // pages of 4 KiB
    FL_ZERO_RUNS = 8,       // that are remembered
};

struct fl_zero_run {
    uint64_t first; // page of the VM
    uint32_t pages; // 0: there is none
    uint32_t unproven;
};

struct fl_zero_runs {
    struct fl_zero_run run[FL_ZERO_RUNS];
    unsigned hand;    // whose place is taken next, if all are in use
    unsigned current; // the place of the run that the last fault brings
    unsigned level;   // log2 of the pages of the next run
    unsigned rest;    // faults before the next look
    uint64_t unproven;
    uint64_t proven;
};

// A write comes at this page of zeros. The run of which it should be looked how far it was used,
// before the window is asked for; NULL: none. No look is asked for while that would change nothing,
// nor soon after one that was in vain.
struct fl_zero_run *fl_zero_runs_doubtful(struct fl_zero_runs *runs, uint64_t page);
// ... what that look has seen: so many of its pages were written to.
void fl_zero_runs_seen(struct fl_zero_runs *runs, struct fl_zero_run *run, uint32_t written);
// How many pages the aligned block around the page may have from which a run is brought: a power of
// two. `sees`: it can be looked at the VM's memory, and was, if that was asked for.
uint32_t fl_zero_runs_window(struct fl_zero_runs *runs, uint64_t page, bool sees);
// The fault of the last window has brought these pages, of which it had asked for `asked`.
void fl_zero_runs_brought(struct fl_zero_runs *runs, uint64_t first, uint32_t pages,
                          uint32_t asked);

#endif
