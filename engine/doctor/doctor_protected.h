// SPDX-License-Identifier: Apache-2.0
//
// Pages that a capture has left write-protected. They are no danger, as every engine takes the
// protection away when the guest writes; but each costs the guest a fault.
#ifndef FAULTLINE_DOCTOR_DOCTOR_PROTECTED_H
#define FAULTLINE_DOCTOR_DOCTOR_PROTECTED_H

#include <stdint.h>

struct fl_proc_fd;

// Of a VM whose state memfd this is, which is trusted (rescue/orphan_state.h): how many pages of
// 4 KiB are write-protected although its state says that none is. 0 also if that cannot be seen.
// *ret_id: the VM's number.
uint64_t fl_doctor_protected(const struct fl_proc_fd *fd, uint64_t *ret_id);

#endif
