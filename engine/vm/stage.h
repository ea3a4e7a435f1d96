// SPDX-License-Identifier: Apache-2.0
//
// What a fault had to wait for: their latencies have nothing in common, so each has a histogram.
#ifndef FAULTLINE_VM_STAGE_H
#define FAULTLINE_VM_STAGE_H

enum fl_stage {
    FL_STAGE_CACHED, // nothing: it was answered in the batch that it was read in
    FL_STAGE_READ,   // it was parked: for storage nearly always, else for memory or the kernel
    FL_STAGE_REPLAY, // of a page of a working set that was being streamed in, parked or not
    FL_STAGES,
};

#endif
