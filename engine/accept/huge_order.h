// SPDX-License-Identifier: Apache-2.0
//
// Which VMs get pages of 2 MiB without a pool (ahead/collapse.h): by the server's option, by the
// listener that they come from, or by an order. Control thread.
#ifndef FAULTLINE_ACCEPT_HUGE_ORDER_H
#define FAULTLINE_ACCEPT_HUGE_ORDER_H

#include <stdbool.h>

#include "engine/vm/choices.h"

struct fl_engine;
struct fl_vm;

// Before a worker has the new VM. `anonymous`: its memory is of no file, and no other process's.
void fl_huge_choose(struct fl_engine *engine, struct fl_vm *vm, enum fl_huge huge, bool anonymous);
// Likewise, of a VM whose state says it already.
void fl_huge_expect(struct fl_engine *engine, struct fl_vm *vm);
// Why the VM cannot have them, a constant part of a sentence; NULL: it can.
const char *fl_huge_why_not(const struct fl_engine *engine, const struct fl_vm *vm);
// From now on; of a VM that can have them. -ENOMEM.
int fl_huge_order(struct fl_engine *engine, struct fl_vm *vm, enum fl_huge huge);

#endif
