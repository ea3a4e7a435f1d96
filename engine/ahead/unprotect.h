// SPDX-License-Identifier: Apache-2.0
//
// Taking the write protection from all pages of a VM, in slices: when a capture ends, and when the
// one of an engine before was not brought to its end. A thread that writes to a page meanwhile
// faults, and gets that page at once. Owner worker only.
#ifndef FAULTLINE_AHEAD_UNPROTECT_H
#define FAULTLINE_AHEAD_UNPROTECT_H

struct fl_shard;
struct fl_vm;

void fl_unprotect_init(struct fl_vm *vm);
// From the first page on, also if it runs already. `over` is called when none is protected any
// more; it may be NULL.
void fl_unprotect_begin(struct fl_shard *shard, struct fl_vm *vm,
                        void (*over)(struct fl_shard *shard, struct fl_vm *vm));
// It stops here, and goes on with the VM's next owner.
void fl_unprotect_suspend(struct fl_vm *vm);
void fl_unprotect_resume(struct fl_shard *shard, struct fl_vm *vm);
// The VM has gone.
void fl_unprotect_end(struct fl_vm *vm);
// After the death of an engine: if it had protected pages.
void fl_unprotect_succeed(struct fl_shard *shard, struct fl_vm *vm);

#endif
