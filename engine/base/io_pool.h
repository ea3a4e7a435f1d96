// SPDX-License-Identifier: Apache-2.0
//
// The threads that may block on storage, so that the threads that serve faults never do. They run
// jobs: a frame's read and decompression, the opening of an image.
//
// There are two queues. A job that a thread waits for comes first; a job for later is only taken
// when none of the first kind waits (but for one job in LATER_EVERY, so that it goes on), and never
// by all threads at once: storage that is slow for the one does not hold up the other.
#ifndef FAULTLINE_BASE_IO_POOL_H
#define FAULTLINE_BASE_IO_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>
#include <urcu/wfcqueue.h>

struct fl_io_pool;

#define FL_IO_YIELD UINT64_C(1)

struct fl_io_job {
    // Runs in a reader thread, RCU offline. Returns 0 when the job is done (it may have freed
    // itself), or the time, as of fl_now(), at which it wants to run again, or FL_IO_YIELD: behind
    // all that waits in its queue.
    uint64_t (*run)(struct fl_io_job *job);
    struct cds_wfcq_node node;
    struct cds_list_head delayed;
    uint64_t not_before;
    bool later; // the queue that it is for
};

// 0, or -errno with no reader left running. The caller stops the pool, which frees it.
int fl_io_pool_start(unsigned threads, struct fl_io_pool **ret_pool);
// Runs the jobs that are not yet begun to their end, delayed ones at once: no thread waits for a
// job in vain.
void fl_io_pool_stop(struct fl_io_pool *pool);

// Any thread; they take no lock and do not wait. The first goes ahead of all jobs for later.
void fl_io_pool_submit(struct fl_io_pool *pool, struct fl_io_job *job);
void fl_io_pool_submit_later(struct fl_io_pool *pool, struct fl_io_job *job);
// Any thread but a worker: takes the readers' lock for a moment. The job is not run before `when`,
// a time of fl_now().
void fl_io_pool_submit_at(struct fl_io_pool *pool, struct fl_io_job *job, uint64_t when);

// Any thread. Whether a job of the first kind waits for a thread now: long jobs for later yield
// then (FL_IO_YIELD).
bool fl_io_pool_hurries(struct fl_io_pool *pool);

#endif
