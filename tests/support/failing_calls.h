// SPDX-License-Identifier: Apache-2.0
//
// What a test and failing_calls.c, which is preloaded into a server, share: a file that says which
// calls of its engines fail. All zero: none.
#ifndef FAULTLINE_TESTS_SUPPORT_FAILING_CALLS_H
#define FAULTLINE_TESTS_SUPPORT_FAILING_CALLS_H

#include <stdatomic.h>
#include <stdint.h>

// Its path, in the environment of the server.
#define FAILING_CALLS "FAILING_CALLS"

enum failing {
    FAILING_HEAP = 1,       // malloc, calloc, realloc, aligned_alloc
    FAILING_MAPPINGS = 2,   // mmap, memfd_create, ftruncate
    FAILING_READS = 4,      // pread: EINTR, EIO, and less than was asked for
    FAILING_SUBMITS = 8,    // io_uring_submit_and_wait
    FAILING_COMPLETES = 16, // what was submitted: not at all, or less than was asked for
    FAILING_FILLS = 32,     // UFFDIO_COPY, ZEROPAGE and UNREGISTER, for want of memory
    FAILING_PAGEMAPS = 64,  // open of a pagemap: as if the process were another user's
    FAILING_SCANS = 128,    // PAGEMAP_SCAN: as before Linux 6.7
    FAILING_POISONS = 256,  // UFFDIO_POISON: as before Linux 6.6
    FAILING_LEDGERS = 512,  // memfd_create() of what an engine counts in
    FAILING_RESENDS = 1024, // FUSE_NOTIFY_RESEND: as before Linux 6.9
};

struct failing_calls {
    _Atomic uint32_t what;  // enum failing
    _Atomic uint32_t every; // one in that many, at random
    _Atomic uint64_t failed;
    // Fills of these addresses take so long: they sleep first.
    _Atomic uint64_t slow_from;
    _Atomic uint64_t slow_to;
    _Atomic uint32_t slow_ms;
    _Atomic int slow_thread; // the one that sleeps; 0: none
    _Atomic uint64_t slow;   // fills that did
};

#endif
