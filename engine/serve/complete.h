// SPDX-License-Identifier: Apache-2.0
//
// Whether all that a VM must have is there, before it is let go: what is absent then reads as
// zeros. Owner worker only.
//
// The pagemap tells (presence.h). Where it cannot be seen, POISON does: it is refused for a page
// that is there, and makes one that is not fail closed, until it is filled, or for good if it was
// there once. A kernel that has no
// POISON (before 6.6) does not say of a page that it is there if it is not, so that the answers to
// the fills are enough.
//
// A REMOVE cannot make it wrong: the kernel drops the page after its event was read, by the same
// thread that looks here, and from then on the page is to be zeros. What is dropped after the look
// is zeros, too.
#ifndef FAULTLINE_SERVE_COMPLETE_H
#define FAULTLINE_SERVE_COMPLETE_H

#include <stdbool.h>
#include <stdint.h>

struct fl_vm;

enum fl_complete {
    FL_COMPLETE_THERE,   // nothing is missing
    FL_COMPLETE_MISSING, // something is: its "installed" bits are cleared, so that a fill finds it
    FL_COMPLETE_AGAIN,   // a REMOVE is in flight, or there is no memory: later
    FL_COMPLETE_GONE,    // the address space is gone
};

// Looks at some of the pages from this one on, in one region; *ret_end is the page behind them.
// Missing is what the guest did not give back, is not in its template, is registered, and is not
// zero in the image (`all`: or is). What was seen to be there once, in memory that can be dropped
// without an event, was dropped: it is zeros from then on. Takes no longer than the copying of a
// frame or two.
enum fl_complete fl_complete_look(struct fl_vm *vm, uint64_t page, bool all, uint64_t *ret_end);

#endif
