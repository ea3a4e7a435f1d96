// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A job is in one place at a time: in a queue (`now` or `later`), in the list
// of delayed ones, or with the reader thread that runs it; between two runs it belongs to the
// thread that submits it. Submitters append to a queue without a lock; readers take from the
// queues, and touch the list, under the lock. run() may free its job, so a reader looks at it no
// more after that, unless it returned a time or FL_IO_YIELD.
//
// Sleep and wake: a reader counts itself asleep, then looks at the queues once more, and only then
// waits; a submitter appends, then looks at the count. With full barriers between, either the
// reader sees the job or the submitter sees the sleeper and posts the semaphore, which wakes one.
// Who was woken for a job in a queue takes one, or finds that others have. But a reader whose time
// has come takes the delayed job instead: then it wakes another one, as it may be away for long.
#include "engine/base/io_pool.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/rcu.h"

enum { LATER_EVERY = 16 };

struct queue {
    struct cds_wfcq_head head; // submitters append without a lock
    struct cds_wfcq_tail tail;
};

struct fl_io_pool {
    struct queue now;
    struct queue later;
    sem_t wakes; // one a job that came while a reader slept
    _Atomic unsigned asleep;
    _Atomic unsigned laters; // readers that run jobs for later; changed under the lock
    atomic_bool stopping;
    pthread_mutex_t lock; // readers among themselves: taking from the queues, and the rest
    struct cds_list_head delayed;
    unsigned turns;
    unsigned laters_most;
    unsigned threads;
    pthread_t thread[];
};

// After the job was put where readers look. Pairs with the count in wait_for_work(): either we see
// the sleeper or it sees the job.
static void wake_one(struct fl_io_pool *pool)
{
    if (atomic_load(&pool->asleep) > 0)
        sem_post(&pool->wakes); // fails only when there are 2^31 of them
}

static void append_job(struct fl_io_pool *pool, struct queue *queue, struct fl_io_job *job)
{
    cds_wfcq_node_init(&job->node);
    __tsan_release(job);
    cds_wfcq_enqueue(&queue->head, &queue->tail, &job->node); // a full barrier
    FL_CRASH_POINT("job_submitted");
    wake_one(pool);
}

void fl_io_pool_submit(struct fl_io_pool *pool, struct fl_io_job *job)
{
    job->later = false;
    append_job(pool, &pool->now, job);
}

void fl_io_pool_submit_later(struct fl_io_pool *pool, struct fl_io_job *job)
{
    job->later = true;
    append_job(pool, &pool->later, job);
}

static bool queue_is_empty(struct queue *queue)
{
    return cds_wfcq_empty(&queue->head, &queue->tail);
}

bool fl_io_pool_hurries(struct fl_io_pool *pool)
{
    return !queue_is_empty(&pool->now);
}

static struct fl_io_job *take_queued(struct queue *queue)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&queue->head, &queue->tail);
    if (!node)
        return NULL;
    struct fl_io_job *job = caa_container_of(node, struct fl_io_job, node);
    __tsan_acquire(job);
    return job;
}

static bool later_is_full(struct fl_io_pool *pool)
{
    return atomic_load(&pool->laters) >= pool->laters_most;
}

static struct fl_io_job *take_later(struct fl_io_pool *pool)
{
    struct fl_io_job *job = later_is_full(pool) ? NULL : take_queued(&pool->later);
    if (job)
        atomic_fetch_add(&pool->laters, 1);
    return job;
}

// The delayed job that is due first, if it is due; else *ret_due is when the next one will be. One
// for later has waited enough: it is counted as such, but runs however many of them do.
static struct fl_io_job *take_delayed(struct fl_io_pool *pool, uint64_t *ret_due)
{
    struct fl_io_job *first = NULL;
    struct fl_io_job *job;
    cds_list_for_each_entry(job, &pool->delayed, delayed)
    {
        if (!first || job->not_before < first->not_before)
            first = job;
    }
    *ret_due = first ? first->not_before : FL_NEVER;
    if (!first || (first->not_before > fl_now() && !atomic_load(&pool->stopping)))
        return NULL;
    cds_list_del(&first->delayed);
    atomic_fetch_add(&pool->laters, first->later);
    return first;
}

static bool any_may_run(struct fl_io_pool *pool)
{
    return !queue_is_empty(&pool->now) || !(queue_is_empty(&pool->later) || later_is_full(pool));
}

static struct fl_io_job *take_job(struct fl_io_pool *pool, uint64_t *ret_due)
{
    pthread_mutex_lock(&pool->lock);
    struct fl_io_job *job = take_delayed(pool, ret_due);
    if (job && any_may_run(pool))
        wake_one(pool); // the wake that this reader had may have been for that
    if (!job && ++pool->turns % LATER_EVERY == 0)
        job = take_later(pool);
    if (!job)
        job = take_queued(&pool->now);
    if (!job)
        job = take_later(pool);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void delay_job(struct fl_io_pool *pool, struct fl_io_job *job, uint64_t when)
{
    pthread_mutex_lock(&pool->lock);
    job->not_before = when;
    cds_list_add_tail(&job->delayed, &pool->delayed);
    pthread_mutex_unlock(&pool->lock);
    wake_one(pool); // it may sleep for longer
}

void fl_io_pool_submit_at(struct fl_io_pool *pool, struct fl_io_job *job, uint64_t when)
{
    job->later = false;
    delay_job(pool, job, when);
}

// The job may be freed, or be another reader's, as soon as it has run.
static void run_job(struct fl_io_pool *pool, struct fl_io_job *job)
{
    bool later = job->later;
    uint64_t again = job->run(job);
    FL_CRASH_POINT("job_run");
    if (later) {
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_sub(&pool->laters, 1);
        pthread_mutex_unlock(&pool->lock);
    }
    if (again == FL_IO_YIELD)
        append_job(pool, later ? &pool->later : &pool->now, job);
    else if (again)
        delay_job(pool, job, again);
}

// Waits for a job in a queue or until a delayed one is due. A reader that has run a job for later
// looks for the next one, so jobs that may not run yet keep no reader awake.
static void wait_for_work(struct fl_io_pool *pool, uint64_t due)
{
    const struct timespec until = fl_until(0, due);
    int got = -1;
    atomic_fetch_add(&pool->asleep, 1); // pairs with append_job()
    FL_CRASH_POINT("reader_asleep");
    if (!any_may_run(pool))
        got = due == FL_NEVER ? sem_wait(&pool->wakes)
                              : sem_clockwait(&pool->wakes, CLOCK_MONOTONIC, &until);
    atomic_fetch_sub(&pool->asleep, 1);
    if (got != 0) // a wake that came meanwhile is of a job that is seen now
        sem_trywait(&pool->wakes);
}

static void *reader_main(void *argument)
{
    struct fl_io_pool *pool = argument;
    pthread_setname_np(pthread_self(), "fl-reader");
    rcu_register_thread();
    fl_rcu_offline();
    for (;;) {
        uint64_t due = FL_NEVER;
        struct fl_io_job *job = take_job(pool, &due);
        if (job) {
            run_job(pool, job);
        } else if (atomic_load(&pool->stopping) && due == FL_NEVER) {
            break;
        } else {
            wait_for_work(pool, due);
        }
    }
    fl_rcu_online();
    rcu_unregister_thread();
    return NULL;
}

static void free_pool(struct fl_io_pool *pool)
{
    sem_destroy(&pool->wakes);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int fl_io_pool_start(unsigned threads, struct fl_io_pool **ret_pool)
{
    struct fl_io_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pthread_t));
    if (!pool)
        return -ENOMEM;
    cds_wfcq_init(&pool->now.head, &pool->now.tail);
    cds_wfcq_init(&pool->later.head, &pool->later.tail);
    pool->laters_most = threads > 1 ? threads - 1 : 1;
    CDS_INIT_LIST_HEAD(&pool->delayed);
    pthread_mutex_init(&pool->lock, NULL);
    int error = sem_init(&pool->wakes, 0, 0) != 0 ? -errno : 0;
    while (!error && pool->threads < threads) {
        error = -pthread_create(&pool->thread[pool->threads], NULL, reader_main, pool);
        pool->threads += !error;
    }
    if (error) {
        fl_io_pool_stop(pool);
        return error;
    }
    *ret_pool = pool;
    return 0;
}

void fl_io_pool_stop(struct fl_io_pool *pool)
{
    atomic_store(&pool->stopping, true);
    for (unsigned i = 0; i < pool->threads; i++)
        sem_post(&pool->wakes);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    free_pool(pool);
}
