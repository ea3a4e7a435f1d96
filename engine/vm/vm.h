// SPDX-License-Identifier: Apache-2.0
//
// One VM as its owner worker sees it.
//
// Made by the control thread, handed to a worker by mail, from then on touched by that worker
// alone, until the worker mails it back for disposal. What others may read meanwhile is constant or
// a counter.
#ifndef FAULTLINE_VM_VM_H
#define FAULTLINE_VM_VM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/bitmap.h"
#include "engine/base/mailbox.h"
#include "engine/base/rcu.h"
#include "engine/host/memory_limit.h"
#include "engine/host/presence.h"
#include "engine/vm/collapse_state.h"
#include "engine/vm/fill_state.h"
#include "engine/vm/first_pages_state.h"
#include "engine/vm/park_state.h"
#include "engine/vm/prefetch.h"
#include "engine/vm/replay_state.h"
#include "engine/vm/shortage_state.h"
#include "engine/vm/unprotect_state.h"
#include "engine/vm/vm_state.h"
#include "engine/vm/waits.h"
#include "engine/vm/zero_runs.h"
#include "snapshot/read.h"

struct fl_capture;
struct fl_template;
struct fl_vm;
struct fl_vm_history;
struct fl_vm_recording;
struct fl_shard;

enum fl_on_error {
    FL_ON_ERROR_POISON, // a page that cannot be had raises SIGBUS in the thread that touches it
    FL_ON_ERROR_KILL,   // ... or the VM is killed
    FL_ON_ERROR_AUTO,   // ... if a guest runs in it under KVM
};

// Moves: SERVING -> RELEASING -> GONE, SERVING -> GONE. Owner only; others read it.
enum fl_vm_phase {
    FL_VM_SERVING,
    FL_VM_RELEASING, // being filled, to be unregistered and left to itself
    FL_VM_GONE,      // its memory is gone or complete: no thread waits any more
};

// How far the killing of a VM has come. Moves: NONE -> SIGNALLED, NONE -> SOUGHT, SOUGHT ->
// SIGNALLED, SOUGHT -> IN_VAIN, SIGNALLED -> SOUGHT (of another process that shares its memory).
// Made in kill.c by the thread that has the VM.
enum fl_vm_death {
    FL_DEATH_NONE,
    FL_DEATH_SOUGHT,    // the process whose memory it is is being looked for
    FL_DEATH_SIGNALLED, // SIGKILL was sent
    FL_DEATH_IN_VAIN,   // it lives on: threads that touch its pages get SIGBUS
};

// What an epoll event of a worker is about.
enum fl_watch_kind { FL_WATCH_MAILBOX, FL_WATCH_FAULTS, FL_WATCH_EXIT, FL_WATCH_SOCKET };
struct fl_watch {
    enum fl_watch_kind kind;
    struct fl_vm *vm;
};

// What the thread of limit_watch.h has seen of the VM's memory limit. What is not atomic is that
// thread's; the name is there for all when `named` says so, and does not change any more.
struct fl_vm_limit {
    bool known;
    uint64_t filled; // pages and faults, when it was last looked at
    uint64_t hits;
    char cgroup[FL_CGROUP_PATH];
    int version; // of cgroups
    atomic_bool named;
    _Atomic uint64_t bytes; // 0: none, or not known
    _Atomic uint64_t used;
    _Atomic uint64_t pages; // that had been installed and zeroed by that look
    atomic_bool looked;     // once, whatever was found
    _Atomic uint64_t met;   // looks that found that it had been met
};

struct fl_vm {
    // Constant while a worker owns it.
    uint64_t id;
    // Open while a worker owns the VM; -1 when the VM has been disposed of, which a thread that
    // found it in the table before may see.
    _Atomic int uffd;
    uint64_t uffd_inode; // by which it is told from others; 0: not known
    // Of the process whose memory it is, -1: not known here. Set by the owner, whose descriptor it
    // stays to the end.
    _Atomic int pidfd;
    int state_fd;                // the memfd behind `state`
    struct fl_presence presence; // of the process that has the memory; unknown if it is not seen
    struct fl_vm_state *state;
    uint64_t *removed;
    uint64_t *installed;
    unsigned page_shift;
    struct fl_template *template; // that it maps, of the same image; NULL: none
    struct fl_image *image;       // NULL: the handshake was refused; every fault is poisoned
    enum fl_on_error on_error;
    _Atomic(struct fl_shard *) owner; // changed by the owner, or by the thread that takes it over
    // Of the (last) handshake; open to our end, whatever the VMM does with its own. As pidfd.
    _Atomic int socket;
    bool inherited; // another engine served it before
    // Its first touches are noted here; NULL: they are not. Set when it is made, ended by the
    // owner.
    _Atomic(struct fl_vm_recording *) touches;
    // What becomes of its pages and faults is noted here (history.h); NULL: it is not.
    _Atomic(struct fl_vm_history *) history;

    // Owner only.
    _Atomic enum fl_vm_phase phase;
    bool unwatched; // epoll would not have its userfaultfd: it stays hot
    enum fl_vm_death death;
    uint64_t death_ns;         // when it came to that
    int64_t killed_pid;        // to which SIGKILL was sent
    char kill_reason[512];     // the first
    struct fl_frame_id failed; // of the page that could not be had last; pack 0: not known
    bool kvm;                  // a guest was seen to run in it under KVM
    uint64_t kvm_look_ns;      // when that may be looked for again
    bool hot;                  // in the worker's hot list: its userfaultfd is read in every round
    bool moved;                // it comes from another worker, which left it as a death would
    bool doubtful; // its socket closed or its process exited: look now and then if it is gone
    uint64_t last_active_ns; // when messages were last read
    struct fl_parks parks;
    struct fl_vm_waits waits;
    struct fl_prefetch prefetch;
    struct fl_zero_runs zero_runs;
    struct fl_fill fill;
    struct fl_replay replay;
    struct fl_first_pages first_pages;
    struct fl_collapse collapse;
    struct fl_capture *capture; // capture_state.h; NULL: there is none, and nothing is tracked
    struct fl_unprotect unprotect;
    fl_counter lanes; // times that it went to a lane (lane.h)
    struct fl_shortage shortage;
    struct fl_watch watch_faults;
    struct fl_watch watch_exit;
    struct fl_watch watch_socket;
    struct cds_list_head in_worker;
    struct cds_list_head in_hot;

    // The control thread:
    bool held;     // by the engine before (FL_VM_HELD): no worker has it yet
    bool complete; // it has what it needs to be served

    unsigned image_row; // control thread: 1 + the row that counts it (image_counts.h); 0: not known
    uint64_t huge_need; // control thread: pages of 2 MiB that it will need; 0: not counted (yet)
    // Mail to and from the worker, of the thread that has the VM.
    struct fl_mail mail;
    struct fl_vm_limit limit;
    // The control thread: the VM table.
    struct cds_lfht_node in_table;
    struct rcu_head rcu;
};

static inline uint64_t fl_vm_page_bytes(const struct fl_vm *vm)
{
    return 1ULL << vm->page_shift;
}

// Nothing may be installed ahead of its touch: that would hide the touch from a recording.
static inline bool fl_vm_is_recorded(const struct fl_vm *vm)
{
    return vm->touches != NULL;
}

// 4 KiB pages in a page of the VM.
static inline uint32_t fl_vm_page_units(const struct fl_vm *vm)
{
    return 1U << (vm->page_shift - FL_PAGE_SHIFT);
}

// Pages of 4 KiB that were put into its memory; some of them take none.
static inline uint64_t fl_vm_filled(const struct fl_vm *vm)
{
    const struct fl_vm_counters *counters = &vm->state->counters;
    return fl_counter_get(&counters->installed) + fl_counter_get(&counters->zeroed);
}

// Its handshake was refused: only its faults are answered. The log has told of that, and has no
// more of what never was a VM.
static inline bool fl_vm_refused(const struct fl_vm *vm)
{
    return (vm->state->flags & FL_VM_STATE_REFUSED) != 0;
}

// True if the page was seen to be there and no event has told of its end. Not said of a template's
// pages, which are there for all or for one, nor of pages of 2 MiB whose bits an older engine has
// set: it took the kernel's word for their presence, which some kernels break.
static inline bool fl_vm_had(const struct fl_vm *vm, uint64_t page)
{
    return fl_bit_test(vm->installed, page) && !(vm->state->flags & FL_VM_STATE_TEMPLATE) &&
           (vm->page_shift == FL_PAGE_SHIFT || (vm->state->flags & FL_VM_STATE_SEEN));
}

// It was there, and its memory can be dropped without an event. Where it cannot, a page that is
// absent was never there.
static inline bool fl_vm_may_be_dropped(const struct fl_vm *vm, uint64_t page)
{
    return fl_vm_had(vm, page) && !(vm->state->flags & FL_VM_STATE_TOLD);
}

// For the log.
static inline const char *fl_vm_image_name(const struct fl_vm *vm)
{
    return vm->state->image[0] != '\0' ? vm->state->image : "-";
}

#endif
