// SPDX-License-Identifier: Apache-2.0
//
// What is counted of captures. Written by the control thread alone.
#ifndef FAULTLINE_VM_CAPTURE_COUNTS_H
#define FAULTLINE_VM_CAPTURE_COUNTS_H

#include <errno.h>
#include <stdint.h>

#include "engine/base/histogram.h"

// Whose doing it was that there is no image of a capture.
enum fl_capture_blame {
    FL_BLAME_REFUSED, // it was not begun
    FL_BLAME_CLIENT,  // it left, said what it must not, or was told to end it
    FL_BLAME_VM,      // it has gone, or is let go
    FL_BLAME_ENGINE,  // it stops, or is being replaced
    FL_BLAME_MEMORY,  // there was none for the copies
    FL_BLAME_TORN,    // a page could not be had as it was at the freeze
    FL_BLAME_KERNEL,  // a call failed
    FL_CAPTURE_BLAMES
};

struct fl_capture_counts {
    uint64_t completed;
    uint64_t failed[FL_CAPTURE_BLAMES];
    uint64_t by_fault; // pages of 4 KiB, of all that have ended
    uint64_t by_sweep;
    uint64_t write_faults;
    struct fl_histogram freeze_ns; // from the order to freeze until FROZEN
};

// By the error with which one failed that had begun (ahead/capture.h). EBADMSG is said by no call
// of the kernel that a capture makes: an operator is told of a torn one, and of nothing else.
static inline enum fl_capture_blame fl_capture_blame_of(int error)
{
    switch (-error) {
    case ECANCELED:
    case EPIPE:
    case EPROTO:
        return FL_BLAME_CLIENT;
    case ESRCH:
    case EBUSY: // its guest gave memory back in a way that cannot be followed
        return FL_BLAME_VM;
    case ESHUTDOWN:
        return FL_BLAME_ENGINE;
    case ENOMEM:
    case ENOSPC:
    case EMFILE:
        return FL_BLAME_MEMORY;
    case EBADMSG:
        return FL_BLAME_TORN;
    default:
        return FL_BLAME_KERNEL;
    }
}

// As the metrics and the log name it.
static inline const char *fl_capture_blame_name(enum fl_capture_blame blame)
{
    static const char *const name[FL_CAPTURE_BLAMES] = {
        [FL_BLAME_REFUSED] = "refused", [FL_BLAME_CLIENT] = "client", [FL_BLAME_VM] = "vm",
        [FL_BLAME_ENGINE] = "engine",   [FL_BLAME_MEMORY] = "memory", [FL_BLAME_TORN] = "torn",
        [FL_BLAME_KERNEL] = "kernel"};
    return name[blame];
}

#endif
