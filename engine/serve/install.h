// SPDX-License-Identifier: Apache-2.0
//
// Putting bytes under a guest's pages: the one place where a VM's pages become present. Owner
// worker only.
#ifndef FAULTLINE_SERVE_INSTALL_H
#define FAULTLINE_SERVE_INSTALL_H

#include <stdbool.h>
#include <stdint.h>

struct fl_vm;

enum fl_install {
    FL_INSTALL_DONE,   // *ret_pages pages, from the first on, are there
    FL_INSTALL_AGAIN,  // a REMOVE is in flight: read events, then try again for as long as it takes
    FL_INSTALL_SHORT,  // no memory, or no huge page, now: try again for a while
    FL_INSTALL_GONE,   // the address space is gone
    FL_INSTALL_FAILED, // the kernel will never take it
};

// What becomes of the threads that wait for the pages.
enum fl_wake {
    FL_WAKE,       // they are woken
    FL_WAKE_LATER, // they may sleep until the caller wakes them by fl_install_wake()
};

// Into the template that the VM maps, if it maps one and there is room; into the VM alone if not.
// `count` pages of the VM's size, all within one region. DONE may come with fewer pages than asked
// for: go on behind them.
enum fl_install fl_install_copy(struct fl_vm *vm, uint64_t page, const void *from, uint64_t count,
                                enum fl_wake wake, uint64_t *ret_pages);
enum fl_install fl_install_zero(struct fl_vm *vm, uint64_t page, uint64_t count, enum fl_wake wake,
                                uint64_t *ret_pages);
// Zeros that no fault asks for, into the VM alone: memory that is lacking for them is no shortage
// of the VM, and says AGAIN.
enum fl_install fl_install_zero_ahead(struct fl_vm *vm, uint64_t page, uint64_t count,
                                      uint64_t *ret_pages);
// For a page that was seen to be there, and for which a fault came again: either the message is
// older than the page, and nothing changes, or it was dropped and no event told of that: then zeros
// are there now, and *ret_dropped.
enum fl_install fl_install_dropped(struct fl_vm *vm, uint64_t page, bool *ret_dropped);
// After another thread served the VM, and may have ended within any of these: pages that came by
// its last one are known to be there.
void fl_install_succeed(struct fl_vm *vm);
void fl_install_wake(struct fl_vm *vm, uint64_t page, uint64_t count);
// Of a VM that maps a template: how many of the pages, from the first on, others have filled
// already; threads that wait for them here are woken.
uint64_t fl_install_shared(struct fl_vm *vm, uint64_t page, uint64_t count);
// *ret_there: it is DONE because the page is there, and was not poisoned. That answer is always
// true, whatever can be seen of the VM.
enum fl_install fl_install_poison(struct fl_vm *vm, uint64_t page, bool *ret_there);
// Whether the kernel's word that a page of the VM is there can be trusted, or checked.
bool fl_install_sees(const struct fl_vm *vm);

#endif
