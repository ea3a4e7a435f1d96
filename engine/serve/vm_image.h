// SPDX-License-Identifier: Apache-2.0
//
// What its image has for the pages of a VM. Owner worker only.
#ifndef FAULTLINE_SERVE_VM_IMAGE_H
#define FAULTLINE_SERVE_VM_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/read.h"

struct fl_vm;

// For at most that many 4 KiB pages of the VM that can be installed in one go: the first, and those
// behind it that are neither there nor removed, and come from one place.
struct fl_run fl_vm_run(const struct fl_vm *vm, uint64_t page, uint32_t pages);

// For a page of 2 MiB. UNREAD: *ret_unread is a piece of its map that has to be
// read before that can be said.
enum fl_page_kind { FL_PAGE_BYTES, FL_PAGE_ZERO, FL_PAGE_UNREAD };
enum fl_page_kind fl_vm_page_kind(const struct fl_vm *vm, uint64_t page,
                                  struct fl_frame_id *ret_unread);
static inline bool fl_vm_page_is_zero(const struct fl_vm *vm, uint64_t page)
{
    struct fl_frame_id unread;
    return fl_vm_page_kind(vm, page, &unread) == FL_PAGE_ZERO;
}

// The path of the file that is to blame for a page that cannot be had: that of the frame, if it is
// known, else the image's own; "-" without an image. Returns buf.
enum { FL_VM_PATH = 1024 };
const char *fl_vm_file(const struct fl_vm *vm, char buf[FL_VM_PATH]);
// Notes which file that is, for a page whose bytes could not be read; `failed` is of a frame that
// is known to have failed.
void fl_vm_note_file(struct fl_vm *vm, uint64_t page, struct fl_frame_id failed);

#endif
