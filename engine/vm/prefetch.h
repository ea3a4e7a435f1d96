// SPDX-License-Identifier: Apache-2.0
//
// Which neighbours to install together with a page that was asked for: pure policy, no I/O.
//
// Faults that follow each other in memory form a stream. A stream's window begins at nothing,
// doubles with each fault that continues it, up to a bound, and is forgotten when others take its
// place: so a sequential sweep gets one fault for many pages, and random touches get no page that
// they did not ask for. What was installed ahead is proven useful only when the stream goes on
// behind it; the pages that are not proven are bounded for each VM and for the host.
//
// Owner worker only, but for the host's budget.
#ifndef FAULTLINE_VM_PREFETCH_H
#define FAULTLINE_VM_PREFETCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { FL_STREAMS = 8, FL_STREAM_PATIENCE = 3 };

struct fl_stream {
    uint64_t next;     // the page at which a fault would continue it
    uint32_t window;   // pages to install at the next such fault
    uint32_t unproven; // pages installed ahead by the last one
    uint32_t patience; // times that its place is still not given to another
};

struct fl_prefetch {
    struct fl_stream stream[FL_STREAMS];
    unsigned hand;     // whose place is looked at next for a new stream
    unsigned current;  // the stream of the last fault
    uint64_t unproven; // of the VM: installed ahead, and perhaps never used
};

// Pages of 4 KiB.
struct fl_prefetch_budget {
    uint32_t window;            // the largest one; less than 2: no prefetch
    uint64_t vm;                // unproven pages of a VM, at most
    uint64_t host;              // of all VMs together
    _Atomic uint64_t *unproven; // of all VMs together, shared by all workers
};

// A fault asks for `asked` pages (at least 1) from `page` on; the page before is there, or not
// (`follows`): only if it is can the fault continue a stream. How many may be installed from there
// on: at least `asked`.
uint32_t fl_prefetch_window(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget,
                            uint64_t page, uint32_t asked, bool follows);
// ... and how many of them are going to be (at least 1).
void fl_prefetch_installing(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget,
                            uint64_t page, uint32_t asked, uint32_t pages);
// The VM is gone, and with it what was installed in vain.
void fl_prefetch_end(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget);

#endif
