// SPDX-License-Identifier: Apache-2.0
//
// Faults for memory that no image backs. Owner worker only.
#ifndef FAULTLINE_SERVE_OUTSIDE_H
#define FAULTLINE_SERVE_OUTSIDE_H

#include <stdint.h>

#include "engine/serve/outcome.h"

struct fl_vm;

// Tells the thread that touched an address for which there are no bytes, whatever the size of its
// page is: by SIGBUS, or by the VM's end.
enum fl_outcome fl_fault_outside(struct fl_vm *vm, uint64_t address);

#endif
