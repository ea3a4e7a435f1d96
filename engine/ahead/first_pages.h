// SPDX-License-Identifier: Apache-2.0
//
// One page in each aligned range of 2 MiB of a VM in which there is none.
//
// Where transparent huge pages are on (THP=always, or by advice), the first write in an empty range
// has the kernel make a page of 2 MiB, clear it, find that a userfaultfd has the range, throw the
// page away, and only then raise the fault: 84 to 119 us instead of 3.5 to 7. With any page in the
// range it raises the fault at once. A page of zeros takes no I/O and no memory but that of a page
// table, so these come first; ranges in which the image has bytes only get a page when replay,
// which brings the hot ones theirs, has ended.
//
// The VM is as right without: what cannot be had now is left out, and a range that the guest gave
// back as a whole stays empty.
#ifndef FAULTLINE_AHEAD_FIRST_PAGES_H
#define FAULTLINE_AHEAD_FIRST_PAGES_H

#include "engine/vm/first_pages_state.h"

struct fl_shard;
struct fl_vm;

void fl_first_pages_init(struct fl_vm *vm);
// Owner only. Begins, or goes on, if the VM's state says that it is to have them
// (FL_VM_STATE_FIRST_PAGES).
void fl_first_pages_begin(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. It stops here, and goes on with the VM's next owner.
void fl_first_pages_suspend(struct fl_vm *vm);
// Owner only. For good: the VM is gone, or is filled anyway.
void fl_first_pages_end(struct fl_vm *vm);

#endif
