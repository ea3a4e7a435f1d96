// SPDX-License-Identifier: Apache-2.0
//
// What the handlers that the engine is compared with have in common: Firecracker's handshake, a
// memory file that is mapped and in memory, a thread for each VM, and an account at the end. None
// of them is safe to use for a guest: a REMOVE is noted without regard to a copy in flight, nothing
// survives the handler's death, and what it cannot resolve it leaves waiting.
#ifndef FAULTLINE_BENCH_HANDLERS_HANDLER_H
#define FAULTLINE_BENCH_HANDLERS_HANDLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/userfaultfd.h>

enum { BENCH_REGIONS_MAX = 8 };

struct bench_region {
    uint64_t start;
    uint64_t bytes;
    uint64_t offset; // in the memory file
    bool *removed;   // by page
};

// Owned by its thread.
struct bench_vm {
    int uffd;
    int sock; // readable or hung up: the VM has gone
    uint64_t page_size;
    uint64_t attached_ns; // CLOCK_MONOTONIC
    uint32_t regions;
    struct bench_region region[BENCH_REGIONS_MAX];
};

enum bench_answer {
    BENCH_COPIED, // or nothing to do
    BENCH_LATER,  // the VM is removing memory: its event must be read first
};

// Puts the page of a fault there; wakes who waits if it was there.
enum bench_answer bench_vm_resolve(const struct bench_vm *vm, uint64_t addr);
// Wakes who waits for the page: it faults again, and its message comes back behind the event.
void bench_vm_wake(const struct bench_vm *vm, uint64_t addr);
void bench_vm_note_removed(const struct bench_vm *vm, uint64_t start, uint64_t end);
// The region of an address and its page in the memory file; false if it is in none.
bool bench_vm_find(const struct bench_vm *vm, uint64_t addr, const struct bench_region **ret_region,
                   uint64_t *ret_file_page);
// Any thread; for the account.
void bench_count_faults(uint64_t count);

// Serves the VM until it has gone. In a thread of its own.
typedef void bench_serve(struct bench_vm *vm);

// Listens at `socket_path` until SIGTERM, then prints the faults and the CPU time as JSON. What
// went wrong is said on standard error after `name`. Returns the exit status.
int bench_handler_run(const char *name, const char *socket_path, const char *memory_file,
                      bench_serve *serve);

#endif
