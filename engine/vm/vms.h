// SPDX-License-Identifier: Apache-2.0
//
// The table of VMs, by number. The control thread alone adds and removes; any RCU reader may look
// things up. The table does not own its VMs: after fl_vms_remove() the caller frees one with
// fl_rcu_defer(), as readers may still see it.
#ifndef FAULTLINE_VM_VMS_H
#define FAULTLINE_VM_VMS_H

#include <stdint.h>

#include "engine/base/rcu.h"

struct fl_vm;

struct fl_vms {
    struct cds_lfht *table;
    // Control thread:
    unsigned count;
    uint64_t next_id; // the number of the next new VM
};

// Control thread. -ENOMEM.
int fl_vms_init(struct fl_vms *vms);
// Control thread, when the table is empty and no callback of RCU is outstanding.
void fl_vms_fini(struct fl_vms *vms);

// Control thread. No later VM gets its number.
void fl_vms_add(struct fl_vms *vms, struct fl_vm *vm);
// Control thread.
void fl_vms_remove(struct fl_vms *vms, struct fl_vm *vm);

// Any RCU reader: the VM of that number, valid until the reader's next quiescent state; NULL if
// there is none.
struct fl_vm *fl_vms_find(const struct fl_vms *vms, uint64_t id);
// Any RCU reader: calls fn for each VM.
void fl_vms_each(const struct fl_vms *vms, void (*fn)(void *arg, const struct fl_vm *vm),
                 void *arg);

#endif
