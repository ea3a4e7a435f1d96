// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "snapshot/io.h"
#include "snapshot/store_dir.h"

struct slot {
    unsigned stage; // the next one to run
    bool busy;
};

struct run {
    const struct fl_pipeline *pipeline;
    pthread_mutex_t lock;
    pthread_cond_t work;    // a thread may find some, or has to end
    pthread_cond_t watched; // a thread has, or there was an error: for the one that watches
    // lock covers these. Item n of the input is in slot n % items_count from `read` on until it has
    // left the last stage.
    struct slot *slots;
    uint64_t head;                // the oldest item still in work
    uint64_t tail;                // the next item to be read
    uint64_t next[FL_STAGES_MAX]; // of an ordered stage: the item that comes next
    bool stage_busy[FL_STAGES_MAX];
    bool ended; // the first stage has reached the end of the input
    unsigned started;
    unsigned running; // threads
    unsigned idle;    // of them: they wait for work
    int error;
};

struct task {
    unsigned stage;
    uint64_t item;
};

static struct slot *slot_of(struct run *run, uint64_t item)
{
    return &run->slots[item % run->pipeline->items_count];
}

static bool ready(struct run *run, unsigned stage, uint64_t item)
{
    const struct slot *slot = slot_of(run, item);
    return slot->stage == stage && !slot->busy;
}

static bool pick_at(struct run *run, unsigned stage, uint64_t *ret_item)
{
    if (stage == 0) {
        *ret_item = run->tail;
        return !run->ended && !run->stage_busy[0] &&
               run->tail - run->head < run->pipeline->items_count;
    }
    if (run->pipeline->stages[stage].ordered) {
        *ret_item = run->next[stage];
        return !run->stage_busy[stage] && *ret_item < run->tail && ready(run, stage, *ret_item);
    }
    for (uint64_t item = run->head; item < run->tail; item++) {
        if (ready(run, stage, item)) {
            *ret_item = item;
            return true;
        }
    }
    return false;
}

static bool pick(struct run *run, struct task *ret_task)
{
    for (unsigned stage = run->pipeline->stages_count; stage-- > 0;) {
        if (pick_at(run, stage, &ret_task->item)) {
            ret_task->stage = stage;
            return true;
        }
    }
    return false;
}

// Call it under the lock. The first error counts.
static void fail(struct run *run, int error)
{
    if (run->error != 0)
        return;
    run->error = error;
    if (run->pipeline->stopped)
        run->pipeline->stopped(run->pipeline->arg);
    pthread_cond_broadcast(&run->work);
    pthread_cond_broadcast(&run->watched);
}

// The first stage's item counts as read before it runs, so that no other thread reads into its
// slot; it is taken back if the input was at its end.
static void take_task(struct run *run, const struct task *task)
{
    slot_of(run, task->item)->busy = true;
    if (run->pipeline->stages[task->stage].ordered)
        run->stage_busy[task->stage] = true;
    if (task->stage == 0) {
        slot_of(run, task->item)->stage = 0;
        run->tail++;
    }
}

static void finish(struct run *run, const struct task *task, int result)
{
    struct slot *slot = slot_of(run, task->item);
    slot->busy = false;
    run->stage_busy[task->stage] = false;
    if (result < 0) {
        fail(run, result);
    } else if (task->stage == 0 && result == 0) {
        run->ended = true;
        run->tail--;
    } else {
        run->next[task->stage] = task->item + 1;
        slot->stage++;
        // Items may leave the last stage in any order; a slot is free once all before it have left.
        while (run->head < run->tail && ready(run, run->pipeline->stages_count, run->head))
            run->head++;
    }
}

static bool over(const struct run *run)
{
    return run->error != 0 || (run->ended && run->head == run->tail);
}

// Whoever takes a task wakes one thread if there is another task, and that one does likewise: so
// none is woken in vain, and none sleeps while there is work. Call it under the lock.
static void wake_one(struct run *run)
{
    struct task another;
    if (run->idle > 0 && pick(run, &another))
        pthread_cond_signal(&run->work);
}

static void wait_for_work(struct run *run)
{
    run->idle++;
    pthread_cond_wait(&run->work, &run->lock);
    run->idle--;
}

static void *work(void *arg)
{
    struct run *run = arg;
    const struct fl_pipeline *pipeline = run->pipeline;
    pthread_mutex_lock(&run->lock);
    unsigned thread = run->started++;
    while (!over(run)) {
        struct task task;
        if (!pick(run, &task)) {
            wait_for_work(run);
            continue;
        }
        take_task(run, &task);
        wake_one(run);
        pthread_mutex_unlock(&run->lock);
        int r = pipeline->stages[task.stage].fn(
            pipeline->arg, pipeline->items[task.item % pipeline->items_count], thread);
        pthread_mutex_lock(&run->lock);
        finish(run, &task, r);
    }
    run->running--;
    pthread_cond_broadcast(&run->work); // it is over for all
    pthread_cond_broadcast(&run->watched);
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

// The new threads block all signals: the thread that reports progress handles them.
static int start_thread(pthread_t *ret_thread, void *(*fn)(void *), void *arg)
{
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(ret_thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

static void wait_a_moment(struct run *run)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&run->watched, &run->lock, &until);
}

// Runs in the calling thread until the other threads have ended. Calls progress without the lock.
static void watch(struct run *run)
{
    const struct fl_pipeline *pipeline = run->pipeline;
    double last = fl_seconds_wall();
    pthread_mutex_lock(&run->lock);
    while (run->running > 0) {
        wait_a_moment(run);
        if (fl_seconds_wall() - last < 0.1 || !pipeline->progress)
            continue;
        pthread_mutex_unlock(&run->lock);
        int r =
            fl_progress_call(pipeline->progress, pipeline->done(pipeline->arg), pipeline->total);
        pthread_mutex_lock(&run->lock);
        if (r < 0)
            fail(run, r);
        last = fl_seconds_wall();
    }
    pthread_mutex_unlock(&run->lock);
}

static void init_sync(struct run *run)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&run->watched, &attr);
    pthread_cond_init(&run->work, NULL);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&run->lock, NULL);
}

int fl_pipeline_run(const struct fl_pipeline *pipeline)
{
    struct run run = {.pipeline = pipeline, .running = pipeline->threads};
    FL_AUTO_FREE struct slot *slots = calloc(pipeline->items_count, sizeof(*slots));
    FL_AUTO_FREE pthread_t *threads = calloc(pipeline->threads, sizeof(*threads));
    if (!slots || !threads)
        return -ENOMEM;
    run.slots = slots;
    init_sync(&run);
    unsigned started = 0;
    int r = 0;
    while (r == 0 && started < pipeline->threads) {
        r = start_thread(&threads[started], work, &run);
        started += r == 0;
    }
    if (r < 0) {
        pthread_mutex_lock(&run.lock);
        fail(&run, r);
        run.running -= pipeline->threads - started;
        pthread_cond_broadcast(&run.watched);
        pthread_mutex_unlock(&run.lock);
    }
    watch(&run);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&run.work);
    pthread_cond_destroy(&run.watched);
    pthread_mutex_destroy(&run.lock);
    return run.error;
}

unsigned fl_threads(unsigned asked)
{
    cpu_set_t cores;
    unsigned count = asked;
    if (count == 0 && sched_getaffinity(0, sizeof(cores), &cores) == 0)
        count = (unsigned)CPU_COUNT(&cores);
    if (count == 0)
        count = 1;
    return count < FL_THREADS_MAX ? count : FL_THREADS_MAX;
}
