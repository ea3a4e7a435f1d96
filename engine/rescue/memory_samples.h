// SPDX-License-Identifier: Apache-2.0
//
// Samples of the memory that a process has: of each page that was looked at, a hash of its content.
// By them its memory is compared with images (sample_matches.h, image_match.h) without being read
// again.
//
// The page is read through /proc/PID/mem: a page that is missing gives an error there at once,
// while process_vm_readv() would wait for the fault handler that is gone (fs/userfaultfd.c: a fault
// that may not be retried is not queued; tried on Linux 6.18). A page in swap is read back.
#ifndef FAULTLINE_RESCUE_MEMORY_SAMPLES_H
#define FAULTLINE_RESCUE_MEMORY_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fl_proc_range;

// Most samples that are taken: some from each part of the memory, however little of it is there.
enum { FL_SAMPLES_MAX = 16384 };

struct fl_sample {
    uint64_t address; // of 4 KiB
    uint64_t hash;    // of its content
    bool zero;
};

// By rising address.
struct fl_samples {
    size_t count;
    struct fl_sample *sample;
};

// Any thread. -EPERM or -EACCES without the right to trace the process, -ESRCH if it is gone,
// -ENOMEM. The ranges are in order.
int fl_samples_take(pid_t pid, int pidfd, const struct fl_proc_range *range, size_t ranges,
                    struct fl_samples *ret_samples);
void fl_samples_free(struct fl_samples *samples);

// The hash of a page of 4 KiB.
uint64_t fl_sample_hash(const void *page);

#endif
