// SPDX-License-Identifier: Apache-2.0
//
// Threads of a mini-VMM (vmm.h) that write to its memory, read it and give it back, as a guest's
// vCPUs and its balloon do, and a model of what is in each page by now. The model is shared memory:
// the test copies it while the threads are paused, and knows what an image of that moment must be.
#ifndef FAULTLINE_TESTS_SUPPORT_WRITERS_H
#define FAULTLINE_TESTS_SUPPORT_WRITERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/support/memory.h"
#include "tests/support/vmm.h"

enum { WRITERS_MOST = 8 };

// Of a page of the VM. Written by one thread of the VMM, the one that has the page.
struct writers_page {
    uint64_t sequence; // in the first and the last word of each 4 KiB; 0: not written
    bool removed;      // what was not written since is zeros; else it is as in the memory file
};

struct writers {
    unsigned threads;    // set these before the VMM is forked
    unsigned removes;    // one of so many operations gives a page back; 0: none does
    unsigned at_once;    // up to so many pages in a row, which are then one thread's; 0: one
    unsigned rests_us;   // after each operation; 0: the threads never rest
    uint32_t hot;        // pages that they use; the rest is as in the memory file
    bool spread;         // ... from the first one to the last, and not the first ones
    uint32_t slots;      // of a region of virtio-mem, which has the last pages; 0: none
    uint32_t slot_pages; // of each
    uint32_t pages;
    uint32_t page_bytes;
    atomic_bool paused;          // orders of the test,
    atomic_bool ended;           //
    _Atomic unsigned waiting;    // and how many threads have paused
    _Atomic uint64_t operations; // so far
    struct writers_page page[];
};

// For so many pages: before the VMM is forked. NULL without memory.
struct writers *writers_new(uint32_t pages, uint32_t page_bytes);
void writers_free(struct writers *writers);

// With `slots`, one more thread plugs slots of the last region in, writes to them, gives parts of
// them back, and unplugs them, as Firecracker does: where nothing is plugged no access is allowed.
// The other threads' pages must be before that region.
//
// In the VMM, which has been handed over: runs the threads until `ended`, then checks every page,
// through its mapping, against the model. A failure ends the process.
void writers_run(struct writers *writers, struct vmm *vmm);

// The test's side: false if they do not do so within the deadline.
bool writers_pause(struct writers *writers);
void writers_resume(struct writers *writers);
void writers_end(struct writers *writers);
// So many more operations were done.
bool writers_go_on(struct writers *writers, uint64_t operations);
// What the image must be, into `image` of pages * page_bytes, while they are paused.
void writers_image(const struct writers *writers, const struct memory *memory, uint8_t *image);

// How many pages of 4 KiB of the process are write-protected in these bytes; -1: it cannot be seen.
long writers_protected(pid_t pid, const void *base, uint64_t bytes);

#endif
