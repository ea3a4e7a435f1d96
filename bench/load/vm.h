// SPDX-License-Identifier: Apache-2.0
//
// One VM of the load generator. It is a process of its own, as a VMM is: so only its own threads
// contend for the kernel's locks of a process, and it ends as a VMM ends. All VMs and the
// coordinator share a board in shared memory, and move through its stages together.
#ifndef FAULTLINE_BENCH_LOAD_VM_H
#define FAULTLINE_BENCH_LOAD_VM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/common/histogram.h"

enum bench_order { BENCH_SEQUENTIAL, BENCH_RANDOM, BENCH_RECORDED };

struct load_options {
    const char *socket_path; // NULL: the memory is mapped_file
    const char *mapped_file; // raw memory, mapped privately, without a server
    const char *memory_file; // what the pages are compared with; NULL: nothing is verified
    const char *order_file;  // lines of PAGE or PAGE MS, for BENCH_RECORDED
    enum bench_order order;
    uint32_t vms;
    uint32_t threads; // of each VM
    uint64_t bytes;   // of each VM
    uint64_t page_size;
    uint64_t touch;  // pages touched in each VM, at most
    uint64_t verify; // pages compared in each VM after the measurement
    uint64_t seed;
    uint64_t timeout_s;
    uint64_t warm; // bytes that the coordinator touches and frees first; 0: what the VMs will touch
    bool restore;  // VMs attach after the start, so that the times include it
    bool paced;    // no touch before its recorded time
    bool shared;   // every thread touches every page, instead of its own share
    bool hold;     // stay attached until standard input ends
};

// Only the coordinator changes the stage, and only to the next.
enum bench_stage {
    BENCH_ATTACH,  // VMs attach (unless they are to be restored) and wait at the start line
    BENCH_TOUCH,   // threads touch and measure
    BENCH_VERIFY,  // the measurement is over, pages are compared
    BENCH_RELEASE, // VMs may exit
};

// The thread writes it before it adds itself to `finished`; the coordinator reads it afterwards.
struct bench_thread_result {
    uint64_t end_ns;   // CLOCK_MONOTONIC
    uint64_t cpu_ns;   // of the thread, while it touched
    uint64_t faults;   // touches that had to wait for the server
    uint64_t checksum; // keeps the reads from being optimised away
    struct bench_hist latency;
};

struct bench_board {
    _Atomic uint32_t stage; // futex of the VMs
    _Atomic uint32_t ready; // threads at the start line; futex of the coordinator, as the next two
    _Atomic uint32_t finished; // threads that have touched their pages
    _Atomic uint32_t verified; // VMs that have compared theirs
    _Atomic uint64_t pages_compared;
    _Atomic uint64_t pages_wrong;
    uint64_t start_ns;                   // CLOCK_MONOTONIC; set before BENCH_TOUCH
    struct bench_thread_result thread[]; // vms * threads
};

// Sets the stage and wakes all VMs. Only the coordinator calls it.
void bench_board_enter(struct bench_board *board, enum bench_stage stage);
// Sleeps while *word is `seen`, for about 50 ms at most; may return early. Any process may call it.
void bench_board_sleep(_Atomic uint32_t *word, uint32_t seen);

// The body of VM number `vm`, in its own process. Prints what goes wrong on standard error, and
// returns the exit status of the process.
int bench_vm_main(const struct load_options *options, struct bench_board *board, uint32_t vm);

#endif
