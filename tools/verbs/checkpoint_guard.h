// SPDX-License-Identifier: Apache-2.0
//
// What is left of a checkpoint if its command is killed: a process in a session of its own, which
// waits for that. It then has the Firecracker come out of open(), resumes the VM, and removes the
// files. It is started before the first of them is made, and before there are threads.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_GUARD_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_GUARD_H

#include "tools/verbs/left_behind.h"
#include <stdatomic.h>
#include <stdbool.h>

// The names in the private directory.
#define GUARD_FIFO "memory"
#define GUARD_VMSTATE "vmstate"

// What the command tells the guard, in memory that both have. Each is set before what it says can
// be so, and cleared when it cannot be any more.
struct guard_orders {
    atomic_bool paused;  // the VM may be paused, and is to be resumed
    atomic_bool pausing; // the order to pause it may still be on its way
};

struct guard {
    struct left_behind process;
    struct guard_orders *orders; // NULL: never started
};

// base: the directory in which the private directory `name` will be; the guard gets its own
// descriptor. Returns 0 or -errno.
int guard_start(const char *api, int base, const char *name, struct guard *ret_guard);
// Nothing is left to be done: the guard ends, and is waited for. For one that was never started, a
// no-op.
void guard_dismiss(struct guard *guard);
// The command cannot resume the VM now: the guard does all as if the command had been killed.
void guard_leave(struct guard *guard);

// What the guard does, and the command itself after a failure. Opens the FIFO, so that a
// Firecracker that waits for a reader goes on; the descriptor is kept open until it has answered.
// Returns it, or -1 if there is no FIFO.
int guard_open_fifo(int dir);
// Removes the FIFO, the file of the state, and the directory.
void guard_remove(int base, const char *name, int dir);

#endif
