// SPDX-License-Identifier: Apache-2.0
//
// The watcher looks at all threads every 2 ms while any of them is within calls, and sleeps while
// none is. It needs no clock in the path of a fault: a call that has the same number at two looks
// has lasted for as long as was between them.
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/counter.h"
#include "engine/base/log.h"
#include "engine/host/procfs.h"
#include "engine/link/ledger.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane.h"
#include "engine/worker/lane_internal.h"
#include "engine/worker/worker.h"

#define LOOK_EVERY (2 * FL_NS_PER_MS)
enum { NICE = -10 }; // a busy host must not delay it, as a worker's other VMs wait for it
#define AWAKE (100 * FL_NS_PER_MS) // for so long without a call, before it sleeps
// A call that sleeps is taken from at the second look. One that runs may be the copying of much, or
// wait for nothing but a CPU, which it would have to share with the thread that goes on.
#define BUSY (6 * FL_NS_PER_MS)
#define BUSY_CPU (3 * FL_NS_PER_MS) // of it, with a CPU

// What was seen of one thread.
struct fl_seen {
    fl_counter word;     // read by anyone
    fl_counter since_ns; // that its call has this number; read by anyone
    uint64_t cpu_ns;     // that it had used when it was seen to run
    bool told;           // that there is no lane for it
};

// --- what a thread does in the kernel ---

// Nanoseconds on a CPU. 0 where the kernel does not tell.
static uint64_t thread_cpu(pid_t tid)
{
    char path[64];
    char text[96];
    uint64_t ns = 0;
    snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)tid);
    if (fl_proc_read(path, text, sizeof(text)) > 0)
        ns = strtoull(text, NULL, 10);
    return ns;
}

static bool thread_sleeps(pid_t tid)
{
    char path[64];
    struct fl_proc_task task;
    snprintf(path, sizeof(path), "/proc/self/task/%d", (int)tid);
    return fl_proc_task(path, &task) == 0 && task.state != 'R';
}

// Whether others are to go on without it.
static bool thread_holds_up(struct fl_seen *seen, pid_t tid, uint64_t now)
{
    if (thread_sleeps(tid))
        return true;
    uint64_t cpu = thread_cpu(tid);
    if (!seen->cpu_ns)
        seen->cpu_ns = cpu;
    return now - seen->since_ns >= BUSY && (cpu == 0 || cpu - seen->cpu_ns >= BUSY_CPU);
}

// --- taking ---

// Its lane goes on with what the thread has but for the VM of the call.
static void thread_take_from(struct fl_lanes *lanes, struct fl_thread *thread, struct fl_seen *seen)
{
    struct fl_worker *lane = fl_lane_take(lanes);
    if (!lane) {
        if (!seen->told)
            fl_log(FL_LOG_ERROR,
                   "event=lanes_full lanes=%u vm=%" PRIu64
                   " reason=\"the kernel blocks a worker on this VM, and the worker's other VMs "
                   "wait too\"",
                   atomic_load(&lanes->count), atomic_load(thread->call.shared));
        seen->told = true;
        atomic_fetch_add(&lanes->counts->refused, 1);
        return;
    }
    uint64_t word = seen->word;
    if (!atomic_compare_exchange_strong(&thread->call.word, &word,
                                        word - FL_CALL_IN + FL_CALL_TAKING)) {
        fl_lane_is_free(lane); // it has come back
        return;
    }
    atomic_fetch_add(&lanes->counts->taken, 1);
    lane->go_on_with = atomic_load(&thread->worker);
    lane->go_on.deliver = fl_lane_ordered;
    fl_mailbox_post(&lane->shard.mailbox, &lane->go_on);
}

static void watch_look_at(struct fl_lanes *lanes, struct fl_thread *thread, struct fl_seen *seen,
                          uint64_t now)
{
    uint64_t word = atomic_load(&thread->call.word);
    if (word != seen->word) {
        atomic_store_explicit(&seen->since_ns, now, memory_order_relaxed);
        atomic_store_explicit(&seen->word, word, memory_order_relaxed);
        seen->cpu_ns = 0;
        seen->told = false;
        return;
    }
    pid_t tid = atomic_load(&thread->tid);
    if (fl_call_state(word) != FL_CALL_IN || now - seen->since_ns < LOOK_EVERY ||
        !thread_holds_up(seen, tid, now))
        return;
    struct fl_worker *worker = atomic_load(&thread->worker);
    if (worker->is_lane)
        atomic_store(&worker->slow_ns, now);
    else
        thread_take_from(lanes, thread, seen);
}

// True if any thread was within a call since the last time.
static bool watch_look(struct fl_lanes *lanes, uint64_t now)
{
    bool any = false;
    for (unsigned i = 0; i < fl_engine_workers(lanes->engine); i++) {
        struct fl_thread *thread = &fl_engine_worker(lanes->engine, i)->own;
        struct fl_seen *seen = &lanes->seen[i];
        uint64_t before = seen->word;
        watch_look_at(lanes, thread, seen, now);
        any = any || seen->word != before || fl_call_state(seen->word) != FL_CALL_NONE;
    }
    return any;
}

uint64_t fl_lane_blocked_ns(const struct fl_worker *lane, uint64_t now)
{
    const struct fl_thread *thread = fl_worker_runs(lane);
    const struct fl_seen *seen = &lane->engine->lanes->seen[thread->slot - 1];
    uint64_t word = atomic_load(&thread->call.word);
    uint64_t since = atomic_load_explicit(&seen->since_ns, memory_order_relaxed);
    bool blocked = fl_call_state(word) != FL_CALL_NONE &&
                   word / FL_CALL_STATES ==
                       atomic_load_explicit(&seen->word, memory_order_relaxed) / FL_CALL_STATES;
    return blocked && since < now ? now - since : 0;
}

// --- lanes ---

// One more, which is free. By the watcher, or the control thread before there is one.
static int lane_new(struct fl_lanes *lanes)
{
    unsigned count = atomic_load(&lanes->count);
    struct fl_worker *lane = count < FL_LANES ? calloc(1, sizeof(*lane)) : NULL;
    if (!lane)
        return -ENOMEM;
    fl_worker_prepare(lane, lanes->engine, lanes->engine->worker_count + count);
    lane->is_lane = true;
    int error = fl_worker_start(lane);
    if (error) {
        free(lane);
        return error;
    }
    lanes->lane[count] = lane;
    atomic_store(&lanes->count, count + 1);
    return 0;
}

void fl_lanes_free(struct fl_lanes *lanes)
{
    if (!lanes)
        return;
    for (unsigned i = 0; i < atomic_load(&lanes->count); i++) {
        fl_worker_free(lanes->lane[i]);
        free(lanes->lane[i]);
    }
    free(lanes->seen);
    free(lanes);
}

// --- the thread ---

static void watch_sleep(struct fl_lanes *lanes)
{
    struct fl_sleeper *sleeper = &lanes->engine->call_watcher;
    fl_sleeper_prepare(sleeper);
    // Pairs with fl_call_begin(): either it sees that we sleep, or we see its call.
    if (!watch_look(lanes, fl_now()) && !atomic_load(&lanes->ends))
        fl_sleeper_sleep(sleeper);
    fl_sleeper_awake(sleeper);
}

static void *watch_main(void *arg)
{
    struct fl_lanes *lanes = arg;
    const struct timespec tick = {.tv_nsec = (long)LOOK_EVERY};
    uint64_t active_ns = 0;
    pthread_setname_np(pthread_self(), "fl-lanes");
    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    while (!atomic_load(&lanes->ends)) {
        uint64_t now = fl_now();
        if (watch_look(lanes, now)) {
            active_ns = now;
            fl_sleeper_notice(&lanes->engine->limit_watcher);
        }
        if (!fl_lanes_any_free(lanes))
            lane_new(lanes);
        if (now - active_ns > AWAKE)
            watch_sleep(lanes);
        else
            clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
    }
    return NULL;
}

// --- start and end ---

int fl_lanes_start(struct fl_engine *engine)
{
    struct fl_lanes *lanes = calloc(1, sizeof(*lanes));
    if (!lanes)
        return -ENOMEM;
    lanes->engine = engine;
    lanes->counts = fl_ledger_block(engine->ledger, FL_LEDGER_LANES, 0);
    lanes->seen = calloc(engine->worker_count + FL_LANES, sizeof(*lanes->seen));
    engine->lanes = lanes;
    int error = lanes->seen ? lane_new(lanes) : -ENOMEM;
    if (!error)
        error = -pthread_create(&lanes->watcher, NULL, watch_main, lanes);
    lanes->watching = !error;
    return error;
}

void fl_lanes_end_watch(struct fl_lanes *lanes)
{
    if (!lanes || !lanes->watching)
        return;
    atomic_store(&lanes->ends, true);
    fl_sleeper_wake(&lanes->engine->call_watcher);
    pthread_join(lanes->watcher, NULL);
    lanes->watching = false;
}
