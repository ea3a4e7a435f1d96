// SPDX-License-Identifier: Apache-2.0
//
// Killing a VM: the process whose memory it is, which need not be the one that did the handshake
// (memory_owner.h), and what follows if that changes nothing.
//
// A kill is never the last word. The process may not be known yet, may be in no PID namespace of
// ours, may share the memory with another that lives on, or may be held up by the very fault that
// cannot be answered. So the userfaultfd is looked at until its memory is gone; if it is not gone
// FL_KILL_GRACE after the signal, its pages are poisoned as they are touched.
#ifndef FAULTLINE_SERVE_KILL_H
#define FAULTLINE_SERVE_KILL_H

#include <stdbool.h>

#include "engine/base/clock.h"

struct fl_io_pool;
struct fl_mailbox;
struct fl_vm;
struct fl_vms;
struct fl_shard;

#define FL_KILL_GRACE FL_NS_PER_S

// What it takes to look for the process of a VM: one for the engine. Constant.
struct fl_killer {
    const struct fl_vms *vms;
    struct fl_io_pool *io_pool; // whose threads look
    struct fl_mailbox *control; // the control thread, which they tell what they have found
    // Required. Control thread: the process whose memory the VM is was found. Has the keeper know
    // of it, which kills by what it has in the VM's record. `control` is what the control thread
    // takes its mail with. Borrows the pidfd; must not block.
    void (*found)(void *control, const struct fl_vm *vm, int pidfd);
};

// The thread that has the VM: its worker, or the control thread before there is one. True while its
// end can be expected: leave its pages until then. False when it cannot be killed. Say it as often
// as you like: the first time it is logged with the reason.
bool fl_kill(const struct fl_killer *killer, struct fl_vm *vm, const char *reason);

// The same thread: whether the VM's policy is to kill it for a page that cannot be had.
bool fl_kill_wanted(struct fl_vm *vm);

// The same thread: has the process looked for, as what a predecessor knew of it is not enough.
void fl_kill_find(const struct fl_killer *killer, struct fl_vm *vm);

// Owner worker, now and then, for a VM whose memory is still there.
void fl_kill_look(struct fl_shard *shard, struct fl_vm *vm);

#endif
