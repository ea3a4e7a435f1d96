// SPDX-License-Identifier: Apache-2.0
//
// What a process uses, as the kernel counts it. Any thread.
#ifndef FAULTLINE_HOST_PROCESS_USAGE_H
#define FAULTLINE_HOST_PROCESS_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fl_process_usage {
    char state;           // R, S, D, T: stopped, t: traced, Z ...; 0: not known
    uint64_t cpu_ns;      // user and system time of all its threads
    uint64_t resident;    // bytes
    uint64_t virtual;     // bytes
    uint64_t descriptors; // open ones; UINT64_MAX: not known
    uint64_t limit;       // of them; UINT64_MAX: not known
    uint64_t started_ns;  // of the epoch
};

// -errno if there is no such process, or /proc does not show it.
int fl_process_usage(pid_t pid, struct fl_process_usage *ret_usage);

#endif
