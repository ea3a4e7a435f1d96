// SPDX-License-Identifier: Apache-2.0
//
// What a capture knows of the pages of its VM, and what becomes of them. It makes no calls. Owner
// worker only; all of a VM that has a capture.
#ifndef FAULTLINE_VM_CAPTURE_PAGES_H
#define FAULTLINE_VM_CAPTURE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/capture_state.h"

struct fl_vm;

// How a page was at the freeze.
enum fl_captured {
    FL_CAPTURED_DATA,   // its bytes are in the buffer
    FL_CAPTURED_ZERO,   // zeros
    FL_CAPTURED_ABSENT, // not there: zeros if it was given back before, else as in the parent
    FL_CAPTURED_PARENT, // as in the parent
};

// Pages of the VM, by its own numbers. They are done with this.
void fl_capture_set_done(struct fl_vm *vm, uint64_t page, uint64_t count, enum fl_captured how);
// They are write-protected from now on, or are not.
void fl_capture_set_armed(struct fl_capture *capture, uint64_t page, uint64_t count);
void fl_capture_set_unarmed(struct fl_capture *capture, uint64_t page, uint64_t count);
// It is certain what is captured, and not all of it is done: what the guest drops must be copied
// before.
bool fl_capture_holds(const struct fl_capture *capture);

// What happens to the VM's pages meanwhile. They were put where none were:
void fl_capture_installed(struct fl_vm *vm, uint64_t page, uint64_t count);
// The guest gives [start, end) back, as the kernel tells it. Of a page of 2 MiB it may be a part.
void fl_capture_removed(struct fl_vm *vm, uint64_t start, uint64_t end);

// The pages that have a byte in [start, end), one region at a time: from *ret_page on. How many; 0
// if there are no more. Begins with *index 0.
uint64_t fl_capture_span_pages(const struct fl_vm *vm, uint64_t start, uint64_t end,
                               uint32_t *index, uint64_t *ret_page);

#endif
