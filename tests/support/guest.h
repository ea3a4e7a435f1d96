// SPDX-License-Identifier: Apache-2.0
//
// A real KVM guest, as small as they come: its vCPUs add up a word of every page and write the sum
// to a port. Everything they touch, their first instruction included, faults in the kernel's
// context. Runs in a client process (client.h).
#ifndef FAULTLINE_TESTS_SUPPORT_GUEST_H
#define FAULTLINE_TESTS_SUPPORT_GUEST_H

#include "tests/support/client.h"
#include "tests/support/memory.h"
#include "tests/support/vmm.h"

// GUEST_SAW_MMIO: its exit status when a read of its memory came out as one of a device.
enum { GUEST_VCPUS = 2, GUEST_SAW_MMIO = 77 };

struct guest_options {
    const struct memory *memory;
    const char *socket;
    uint32_t page_bytes;
    unsigned regions;
};

// Writes the guest's program to its memory file: before anybody serves that.
void guest_put_program(const char *file);
// A client_main: is restored through the handler at `socket`, and fails unless each vCPU's sum is
// right. arg: struct guest_options.
int guest_main(int channel, struct client_shared *shared, void *arg);

#endif
