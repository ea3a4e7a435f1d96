// SPDX-License-Identifier: Apache-2.0
//
// The threads that may block on storage, so that those who serve faults never do. They run jobs: a
// frame's read and decompression, the opening of an image.
#ifndef FAULTLINE_ENGINE_IO_POOL_H
#define FAULTLINE_ENGINE_IO_POOL_H

#include <stdint.h>

#include <urcu/list.h>
#include <urcu/wfcqueue.h>

struct fl_io_pool;

struct fl_io_job {
    // Runs in a reader thread, RCU offline. Returns 0 when the job is done (it may have freed
    // itself), or the time, as of fl_now(), at which it wants to run again.
    uint64_t (*run)(struct fl_io_job *job);
    struct cds_wfcq_node node;
    struct cds_list_head delayed;
    uint64_t not_before;
};

int fl_io_pool_start(unsigned threads, struct fl_io_pool **ret_pool);
// Jobs not yet begun are run to their end, delayed ones at once: nobody waits for a job in vain.
void fl_io_pool_stop(struct fl_io_pool *pool);

// Any thread; takes no lock and does not wait.
void fl_io_pool_submit(struct fl_io_pool *pool, struct fl_io_job *job);

#endif
