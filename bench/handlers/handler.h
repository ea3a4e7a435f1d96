// SPDX-License-Identifier: Apache-2.0
//
// What the handlers share that the engine is compared with: Firecracker's handshake, a memory file
// that is mapped and in memory, a thread for each VM if they want it, and a report at the end. They
// are not safe for a guest. They note a REMOVE without regard to a copy that is under way, a VM
// does not survive the handler's death, and a fault that they cannot resolve waits for ever.
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

// Only the VM's own thread uses it.
struct bench_vm {
    int uffd;
    int sock; // becomes readable when the VM has gone
    uint64_t page_size;
    uint64_t attached_ns; // CLOCK_MONOTONIC
    uint32_t regions;
    struct bench_region region[BENCH_REGIONS_MAX];
};

enum bench_answer {
    BENCH_COPIED, // or nothing to do
    BENCH_LATER,  // the VM is removing memory: its event must be read first
};

// Copies the page of a fault into the VM. If the page was there already, wakes the threads that
// wait.
enum bench_answer bench_vm_resolve(const struct bench_vm *vm, uint64_t addr);
// Wakes the threads that wait for the page. They fault again, and their new messages come after the
// event that must be read first.
void bench_vm_wake(const struct bench_vm *vm, uint64_t addr);
// From now on these pages are filled with zeros.
void bench_vm_note_removed(const struct bench_vm *vm, uint64_t start, uint64_t end);
// Finds the region of an address, and its page in the memory file. Returns false if it is in no
// region.
bool bench_vm_find(const struct bench_vm *vm, uint64_t addr, const struct bench_region **ret_region,
                   uint64_t *ret_file_page);
// Reads what is there, a batch at most, and answers it. False if there was nothing.
bool bench_vm_serve_some(struct bench_vm *vm);
// Adds to the report's faults. Any thread may call it.
void bench_count_faults(uint64_t count);

// Frees a VM that has gone, and closes its descriptors.
void bench_vm_free(struct bench_vm *vm);

// What is done with a VM that has come. One of the two.
struct bench_handler {
    const char *name;
    // Serves the VM until it has gone. Runs in a thread of the VM's own.
    void (*serve)(struct bench_vm *vm);
    // Takes the VM over, to serve it among others and to free it when it has gone. Runs in the main
    // thread. False: it could not, and the VM is refused.
    bool (*take)(struct bench_vm *vm);
};

// Serves at `socket_path` until SIGTERM, then prints the faults and the CPU time as JSON. Prints
// errors on standard error, with the handler's name in front. Returns the exit status.
int bench_handler_run(const struct bench_handler *handler, const char *socket_path,
                      const char *memory_file);

#endif
