// SPDX-License-Identifier: Apache-2.0
//
// How the memory of one VM came to be there: for each page what brought it, for each fault when it
// came, how long it took and what it waited for. What `faultline report` draws.
//
// Bounded: a byte a page, two histograms of fixed size for each kind, a log of the first faults,
// and the slowest ones. Off unless it was asked for: then vm->history is NULL, and a fault pays for
// the look at that.
//
// Threads: the VM's owner writes, and takes the pointer anew for each note, after the call into the
// VM's memory: another thread may have taken it away meanwhile. The control thread makes and frees
// histories (histories.h), and reads them at any time: all that changes is atomic, the log grows at
// its end only, and an entry of the slowest faults has a number by which a reader sees that it
// changed under it.
#ifndef FAULTLINE_VM_HISTORY_H
#define FAULTLINE_VM_HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/clock.h"
#include "engine/base/histogram.h"
#include "engine/base/image_name.h"
#include "engine/base/rcu.h"
#include "engine/vm/vm.h"

// What brought a page first. A part of the API (history_names.h): only add at the end.
enum fl_came {
    FL_CAME_NEVER,
    FL_CAME_DEMAND,    // its bytes, because a fault asked for it
    FL_CAME_NEIGHBOUR, // ... in one go with a page before it that a fault asked for
    FL_CAME_REPLAY,    // ... ahead of its touch, by the image's trace
    FL_CAME_FILL,      // ... as all memory of the VM was filled
    FL_CAME_ZERO,      // zeros, whatever asked for them
    FL_CAME_TEMPLATE,  // it was in the VM's template
    FL_CAME_OTHER,     // it was there when this history began, or came by nothing that is known
    FL_CAME_FAILED,    // it could not be had: it is poisoned
    FL_CAME_KINDS
};

// What a fault waited for, the worst of it.
enum fl_waited {
    FL_WAITED_NOT,    // its page was had at once
    FL_WAITED_READ,   // for its frame to be read
    FL_WAITED_REMOVE, // the end of a REMOVE of the guest
    FL_WAITED_MEMORY, // memory of the host
    FL_WAITED_KINDS
};

enum { FL_HISTORY_LOG = 16384, FL_HISTORY_SLOWEST = 64 };
#define FL_HISTORY_QUIET FL_NS_PER_S // without a fault, and the VM is quiet

struct fl_history_fault {
    uint64_t at_ns; // since the history began: when it was resolved
    uint64_t page;
    uint64_t took_ns;
    enum fl_waited waited;
};

// A fault that takes the place of another one. `number` is odd while that goes on.
struct fl_history_slow {
    _Atomic uint32_t number;
    _Atomic uint64_t at_ns;
    _Atomic uint64_t page;
    _Atomic uint64_t took_ns; // 0: none yet
    _Atomic uint32_t waited;
};

struct fl_vm_history {
    // Constant.
    uint64_t vm_id;
    int64_t pid; // as it was known in the beginning
    char image[FL_IMAGE_NAME_BYTES];
    uint64_t begun_ns; // fl_now()
    int64_t begun_s;   // since the epoch
    bool inherited;    // another engine served the VM before: what came then is not known
    uint64_t pages;
    unsigned page_shift;
    uint64_t bytes; // of memory, at most

    // Written by the owner.
    _Atomic uint8_t *came;                        // enum fl_came of each page
    struct fl_histogram came_ns[FL_CAME_KINDS];   // pages, by the time since the beginning
    struct fl_histogram faults_ns;                // faults, likewise
    struct fl_histogram took_ns[FL_WAITED_KINDS]; // how long they took
    fl_counter faults;                            // all that were resolved
    fl_counter last_ns;                           // the last one
    fl_counter quiet_ns;                          // the last one before it first was quiet, if
    _Atomic bool quiet;                           // it was
    struct fl_history_fault *log;                 // the first of them
    fl_counter logged;                            // so many
    struct fl_history_slow slowest[FL_HISTORY_SLOWEST];
    uint64_t slow_from_ns; // owner only: the quickest of those, and
    unsigned slow_place;   // where it stands

    // The control thread's (histories.h).
    struct fl_vm *vm; // NULL: it has ended
    uint64_t ended_ns;
    struct fl_vm_counters counters; // as they were at its end
    struct cds_list_head in_all;
    struct rcu_head rcu;
};

// Control thread. NULL without memory.
struct fl_vm_history *fl_vm_history_new(const struct fl_vm *vm);
// Control thread; no other thread sees it any more.
void fl_vm_history_free(struct fl_vm_history *history);
// What it would take.
uint64_t fl_vm_history_bytes(const struct fl_layout *layout);

// --- owner only ---

// NULL: there is none. Good until the owner is quiescent, or calls into the VM's memory.
static inline struct fl_vm_history *fl_vm_history(struct fl_vm *vm)
{
    return atomic_load_explicit(&vm->history, memory_order_acquire);
}

// These pages are there now. Those that were there before keep what brought them.
void fl_vm_history_came(struct fl_vm_history *history, uint64_t page, uint64_t pages,
                        enum fl_came how);
// The same of pages of which it is not known when they came. Also in the control thread, if the VM
// has no owner.
void fl_vm_history_found(struct fl_vm_history *history, uint64_t page, uint64_t pages,
                         enum fl_came how);
// A fault was resolved that had been read at this time.
void fl_vm_history_fault(struct fl_vm_history *history, uint64_t page, uint64_t read_ns,
                         enum fl_waited waited);

// --- control thread ---

static inline enum fl_came fl_vm_history_page(const struct fl_vm_history *history, uint64_t page)
{
    return (enum fl_came)atomic_load_explicit(&history->came[page], memory_order_relaxed);
}

// The slowest faults, the slowest first; how many.
unsigned fl_vm_history_slowest(const struct fl_vm_history *history,
                               struct fl_history_fault ret_faults[FL_HISTORY_SLOWEST]);
// Whether it is or was quiet, and since when.
bool fl_vm_history_quiet(const struct fl_vm_history *history, uint64_t *ret_ns);

#endif
