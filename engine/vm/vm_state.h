// SPDX-License-Identifier: Apache-2.0
//
// What must be known of a VM to go on serving it after the engine died: a memfd with this layout.
//
// The owner worker is the only writer. Everything is written so that a kill between any two
// instructions leaves it usable by a successor:
//  - messages are read straight into `inbox`, which is all zero before the read, and cleared only
//  after
//    each was acted on: a message that was read is either here or done with;
//  - "removed" is set before the REMOVE leaves the inbox, and never cleared: such a page is zeros
//  for
//    the rest of the VM's life, even if it was never filled;
//  - "installed" is set once the page has been seen to be there. Before a VM is let go that is
//    checked all the same.
// Positions are offsets: a successor maps the memfd elsewhere.
#ifndef FAULTLINE_VM_VM_STATE_H
#define FAULTLINE_VM_VM_STATE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/userfaultfd.h>

#include "engine/base/counter.h"
#include "engine/base/image_name.h"
#include "engine/host/region.h"

#define FL_VM_STATE_MAGIC 0x656e696c746c6166ULL // "faultlin", little-endian
enum { FL_VM_STATE_VERSION = 2, FL_INBOX = 64 };

// Flags.
enum {
    FL_VM_STATE_KILL = 1,     // policy: a page that cannot be had kills the VM
    FL_VM_STATE_RELEASED = 2, // its memory is complete and unregistered
    FL_VM_STATE_TEMPLATE =
        4,                  // it maps its image's template: what it gives back is the image's again
    FL_VM_STATE_REPLAY = 8, // its working set is being streamed in: a successor goes on with that
    FL_VM_STATE_REFUSED = 16, // its handshake was refused: it never was a VM of ours
    FL_VM_STATE_OWNER = 32, // pid and pidfd are of the process whose memory it is (memory_owner.h)
    FL_VM_STATE_SEEN = 64,  // "installed" was only ever set of pages that were seen to be there
    FL_VM_STATE_TOLD = 128, // no page of its memory can be dropped without an event
    FL_VM_STATE_AUTO = 512, // policy: ... kills it if KVM makes accesses for the guest
    FL_VM_STATE_COUNTED = 1024, // it has gone, and is in the counts of its image (image_counts.h)
    FL_VM_STATE_PRIVATE = 2048, // only its own process can drop pages of its memory
    FL_VM_STATE_FIRST_PAGES =
        4096, // each empty range of 2 MiB is to get a page (first_pages.h): a successor goes on
    FL_VM_STATE_HUGE = 8192,       // its working set is to be pages of 2 MiB: likewise (collapse.h)
    FL_VM_STATE_ANONYMOUS = 16384, // its memory is of no file, and no other process's
    FL_VM_STATE_RESERVED = 32768,  // the pool has set all of its pages of 2 MiB aside
};

struct fl_vm_counters {
    fl_counter faults;    // messages that asked for a page
    fl_counter installed; // 4 KiB pages copied in
    fl_counter zeroed;    // 4 KiB pages zeroed
    fl_counter poisoned;  // 4 KiB pages
    fl_counter removed;   // 4 KiB pages that the guest gave back
};

struct fl_vm_state {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; // of this structure
    uint64_t id;
    // Of the process whose memory it is (FL_VM_STATE_OWNER), else of the one that is likely; 0 if
    // unknown.
    _Atomic int64_t pid;
    uint64_t removed_offset;   // bitmaps, one bit a page of the layout; bytes from the beginning
    uint64_t installed_offset; //
    uint64_t total_bytes;
    char image[FL_IMAGE_NAME_BYTES]; // empty: no image, every fault is poisoned
    uint64_t image_record;           // the keeper's record of the image; 0: none
    uint64_t connection;             // ... of the handshake that it comes from; 0: none
    _Atomic uint64_t flags;          // FL_VM_STATE_*
    struct fl_layout layout;
    struct fl_vm_counters counters;
    struct uffd_msg inbox[FL_INBOX];
};

// Behind the structure, in what is left of its last page: zero where an older engine has made it,
// and of no meaning to one. Pages that are being filled: they may be there, and their bits not be
// set.
struct fl_vm_filling {
    uint64_t page;
    uint64_t pages;  // 0: none
    fl_counter late; // of struct fl_replay, over all engines that have served it
    // Not 0: pages may be write-protected, and to a successor none shall be (unprotect.h).
    uint64_t protected;
};

static_assert(sizeof(struct uffd_msg) == 32, "the kernel's message size");
static_assert(offsetof(struct fl_vm_state, layout) == 216, "layout of version 2");

// Makes the memfd and maps it. `layout` may have no pages. -ENOMEM, -EMFILE ...
int fl_vm_state_create(uint64_t id, int64_t pid, const char *image, const struct fl_layout *layout,
                       int *ret_fd, struct fl_vm_state **ret_state);
// Maps the memfd of a predecessor, and trusts nothing in it: -EINVAL if it is none or makes no
// sense, -EPROTONOSUPPORT if it is of another version. The caller keeps the descriptor.
int fl_vm_state_open(int fd, struct fl_vm_state **ret_state);
// Unmaps; the caller closes the descriptor.
void fl_vm_state_unmap(struct fl_vm_state *state);

static inline struct fl_vm_filling *fl_vm_filling(struct fl_vm_state *state)
{
    return (struct fl_vm_filling *)(state + 1);
}

static inline uint64_t *fl_vm_removed(struct fl_vm_state *state)
{
    return (uint64_t *)((char *)state + state->removed_offset);
}

static inline uint64_t *fl_vm_installed(struct fl_vm_state *state)
{
    return (uint64_t *)((char *)state + state->installed_offset);
}

#endif
