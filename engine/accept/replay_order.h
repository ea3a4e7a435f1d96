// SPDX-License-Identifier: Apache-2.0
//
// From a VM that was attached to the beginning of its replay: a reader looks for the trace, so that
// neither the handshake nor a take-over waits for it. Control thread.
#ifndef FAULTLINE_ACCEPT_REPLAY_ORDER_H
#define FAULTLINE_ACCEPT_REPLAY_ORDER_H

struct fl_engine;
struct fl_vm;

// Before a worker has the VM, which has its image: has a successor know that there is one to go on
// with.
void fl_replay_expect(struct fl_engine *engine, struct fl_vm *vm);
// Once a worker has it: looks for the trace, and has the worker begin. A no-op for a VM that is not
// to have any.
void fl_replay_order(struct fl_engine *engine, struct fl_vm *vm);
// Has the worker do as FL_VM_STATE_HUGE says from now on (ahead/collapse.h). -ENOMEM.
int fl_collapse_order(struct fl_engine *engine, struct fl_vm *vm);

#endif
