// SPDX-License-Identifier: Apache-2.0
//
// Killing a VM: the process whose memory it is, which need not be the one that did the handshake
// (memory_owner.h), and what follows if that changes nothing.
//
// A kill is never the last word. The process may not be known yet, may be in no PID namespace of
// ours, may share the memory with another that lives on, or may be held up by the very fault that
// cannot be answered. So the userfaultfd is looked at until its memory is gone; if it is not gone
// FL_KILL_GRACE after the signal, whoever touches its pages is told by poison.
#ifndef FAULTLINE_SERVE_KILL_H
#define FAULTLINE_SERVE_KILL_H

#include <stdbool.h>

#include "engine/base/clock.h"

struct fl_engine;
struct fl_vm;
struct fl_worker;

#define FL_KILL_GRACE FL_NS_PER_S

// The thread that has the VM: its worker, or the control thread before there is one. True while its
// end can be expected: leave its pages until then. False when it cannot be killed. Say it as often
// as you like: the first time it is logged with the reason.
bool fl_kill(struct fl_engine *engine, struct fl_vm *vm, const char *reason);

// The same thread: whether the VM's policy is to kill it for a page that cannot be had.
bool fl_kill_wanted(struct fl_vm *vm);

// The same thread: has the process looked for, as what a predecessor knew of it is not enough.
void fl_kill_find(struct fl_engine *engine, struct fl_vm *vm);

// Owner worker, now and then, for a VM whose memory is still there.
void fl_kill_look(struct fl_worker *worker, struct fl_vm *vm);

#endif
