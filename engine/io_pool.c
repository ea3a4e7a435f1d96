// SPDX-License-Identifier: Apache-2.0
#include "engine/io_pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/clock.h"
#include "engine/rcu.h"

struct fl_io_pool {
    struct cds_wfcq_head head; // submitters append without a lock
    struct cds_wfcq_tail tail;
    int event_fd; // a semaphore: one count a job in the queue
    atomic_bool stopping;
    pthread_mutex_t lock; // readers among themselves: taking from the queue, and `delayed`
    struct cds_list_head delayed;
    unsigned threads;
    pthread_t thread[];
};

void fl_io_pool_submit(struct fl_io_pool *pool, struct fl_io_job *job)
{
    cds_wfcq_node_init(&job->node);
    __tsan_release(job);
    cds_wfcq_enqueue(&pool->head, &pool->tail, &job->node);
    uint64_t one = 1;
    ssize_t written = write(pool->event_fd, &one, sizeof(one));
    (void)written; // fails only when 2^64 jobs wait
}

static struct fl_io_job *take_queued(struct fl_io_pool *pool)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&pool->head, &pool->tail);
    if (!node)
        return NULL;
    struct fl_io_job *job = caa_container_of(node, struct fl_io_job, node);
    __tsan_acquire(job);
    return job;
}

// The delayed job that is due first, if it is due; else *ret_due is when the next one will be.
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
    return first;
}

static struct fl_io_job *take(struct fl_io_pool *pool, uint64_t *ret_due)
{
    pthread_mutex_lock(&pool->lock);
    struct fl_io_job *job = take_delayed(pool, ret_due);
    if (!job)
        job = take_queued(pool);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void delay(struct fl_io_pool *pool, struct fl_io_job *job, uint64_t until)
{
    pthread_mutex_lock(&pool->lock);
    job->not_before = until;
    cds_list_add_tail(&job->delayed, &pool->delayed);
    pthread_mutex_unlock(&pool->lock);
}

// Waits for a job in the queue or until a delayed one is due.
static void wait_for_work(struct fl_io_pool *pool, uint64_t due)
{
    struct pollfd poll_fd = {.fd = pool->event_fd, .events = POLLIN};
    struct timespec left = fl_until(fl_now(), due);
    ppoll(&poll_fd, 1, due == FL_NEVER ? NULL : &left, NULL);
    uint64_t count;
    ssize_t got = read(pool->event_fd, &count, sizeof(count));
    (void)got; // another reader may have been faster
}

static void *reader_main(void *argument)
{
    struct fl_io_pool *pool = argument;
    rcu_register_thread();
    fl_rcu_offline();
    for (;;) {
        uint64_t due = FL_NEVER;
        struct fl_io_job *job = take(pool, &due);
        if (job) {
            uint64_t again = job->run(job);
            if (again)
                delay(pool, job, again);
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
    if (pool->event_fd >= 0)
        close(pool->event_fd);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int fl_io_pool_start(unsigned threads, struct fl_io_pool **ret_pool)
{
    struct fl_io_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pthread_t));
    if (!pool)
        return -ENOMEM;
    cds_wfcq_init(&pool->head, &pool->tail);
    CDS_INIT_LIST_HEAD(&pool->delayed);
    pthread_mutex_init(&pool->lock, NULL);
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    int error = pool->event_fd < 0 ? -errno : 0;
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
    // Without EFD_SEMAPHORE's one-by-one counts some reader could sleep on: give each of them one.
    uint64_t wakes = pool->threads;
    ssize_t written = wakes ? write(pool->event_fd, &wakes, sizeof(wakes)) : 0;
    (void)written;
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    free_pool(pool);
}
