// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_FILES_FILES_COUNTS_H
#define FAULTLINE_FILES_FILES_COUNTS_H

#include <stdatomic.h>
#include <stdint.h>

// What the file door counts: its thread alone.
struct fl_files_counts {
    _Atomic uint64_t reads;       // READs answered with bytes
    _Atomic uint64_t bytes;       // that these had
    _Atomic uint64_t waited;      // READs that had to wait for storage
    _Atomic uint64_t failed;      // READs given up; those that the kernel repeats count once
    _Atomic uint64_t held;        // times a READ was held back because of a fault that may pass
    _Atomic uint64_t interrupted; // calls whose caller did not wait any more
    _Atomic uint64_t taken_over;  // answers that came too late: another engine has the call
    _Atomic uint64_t resent;      // calls that a predecessor had read
    _Atomic uint64_t opens;       // files opened so far
};

#endif
