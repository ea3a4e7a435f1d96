// SPDX-License-Identifier: Apache-2.0
#include "engine/worker/lane.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane_internal.h"
#include "engine/worker/worker.h"

#define CALM (5 * FL_NS_PER_S) // after so long without trouble a VM goes back to a worker

// --- lanes that are free ---

struct fl_worker *fl_lane_take(struct fl_lanes *lanes)
{
    unsigned count = atomic_load(&lanes->count);
    for (unsigned i = 0; i < count; i++) {
        bool free = false;
        if (atomic_compare_exchange_strong(&lanes->lane[i]->busy, &free, true))
            return lanes->lane[i];
    }
    return NULL;
}

bool fl_lanes_any_free(const struct fl_lanes *lanes)
{
    unsigned count = atomic_load(&lanes->count);
    for (unsigned i = 0; i < count; i++) {
        if (!atomic_load(&lanes->lane[i]->busy))
            return true;
    }
    return false;
}

// --- into a lane ---

// If its limit was met, that is why; else it is a lock of the VM's, or its end.
void fl_lane_reason(const struct fl_vm *vm, char *text, size_t size)
{
    char limit[FL_LANE_REASON / 2 + FL_CGROUP_PATH];
    const struct fl_vm_limit *seen = &vm->limit;
    if (atomic_load(&seen->met) == 0 || !atomic_load(&seen->named)) {
        snprintf(text, size, "the kernel blocks the thread that serves it");
        return;
    }
    struct fl_memory_limit now = {.limit = atomic_load(&seen->bytes),
                                  .used = atomic_load(&seen->used),
                                  .version = seen->version};
    snprintf(now.cgroup, sizeof(now.cgroup), "%s", seen->cgroup);
    fl_memory_limit_text(&now, limit, sizeof(limit));
    snprintf(text, size, "the VM is at its own memory limit: %s", limit);
}

// A line for the first, second, fourth ... time.
static void lane_log(const struct fl_vm *vm)
{
    char reason[FL_LANE_REASON];
    uint64_t times = fl_counter_get(&vm->lanes);
    if ((times & (times - 1)) != 0)
        return;
    fl_lane_reason(vm, reason, sizeof(reason));
    fl_log(FL_LOG_WARNING, "event=lane vm=%" PRIu64 " image=%s times=%" PRIu64 " reason=\"%s\"",
           vm->id, fl_vm_image_name(vm), times, reason);
}

static void lane_enter(struct fl_worker *worker, struct fl_vm *vm, struct fl_worker *lane)
{
    fl_counter_add(&vm->lanes, 1);
    lane_log(vm);
    atomic_store(&lane->slow_ns, fl_now());
    fl_worker_give_up(worker, vm, lane);
}

void fl_lane_wanted(struct fl_worker *worker, struct fl_vm *vm)
{
    if (worker->is_lane)
        atomic_store(&worker->slow_ns, fl_now());
    else if (vm->phase != FL_VM_GONE)
        worker->leaving = vm;
}

void fl_lane_ordered(void *owner, struct fl_mail *mail)
{
    struct fl_worker *lane = fl_worker_of(owner);
    (void)mail;
    lane->leave_for = lane->go_on_with;
}

// The thread that was within the call and those that may run beside it must not be in each other's
// way: it may be freeing memory.
static void yield_core(const struct fl_thread *blocked, const struct fl_engine *engine)
{
    pid_t tid = atomic_load(&blocked->tid);
    setpriority(PRIO_PROCESS, (id_t)tid, 0);
    if (CPU_COUNT(&engine->cpus) > 0)
        sched_setaffinity(tid, sizeof(engine->cpus), &engine->cpus);
}

void fl_lane_go_on_with(struct fl_thread *thread, struct fl_worker *lane)
{
    struct fl_worker *worker = lane->leave_for;
    struct fl_thread *blocked = fl_worker_runs(worker);
    struct fl_vm *vm = blocked->call.vm;
    struct fl_vm *other;
    struct fl_vm *next;
    lane->leave_for = NULL;
    yield_core(blocked, worker->engine);
    atomic_store(&worker->shard.call, &thread->call);
    atomic_store(&thread->worker, worker);
    atomic_store(&lane->shard.call, &blocked->call);
    atomic_store(&blocked->worker, lane);
    worker->shard.now = fl_now();
    // What the blocked thread had read goes on waiting, with its VM.
    fl_counter_set(&lane->shard.batch_ns, fl_counter_get(&worker->shard.batch_ns));
    fl_counter_set(&worker->shard.batch_ns, 0);
    lane_enter(worker, vm, lane);
    // Of the events that the thread before had taken from epoll it may not have seen all.
    cds_list_for_each_entry_safe(other, next, &worker->owned, in_worker)
        fl_worker_make_hot(worker, other);
    atomic_fetch_add(&blocked->call.word, FL_CALL_TAKEN - FL_CALL_TAKING);
}

// --- out of it ---

static struct fl_vm *lane_vm(const struct fl_worker *lane)
{
    return lane->owned.next == &lane->owned
               ? NULL
               : cds_list_first_entry(&lane->owned, struct fl_vm, in_worker);
}

uint64_t fl_lane_next_due(const struct fl_worker *worker)
{
    return worker->is_lane && lane_vm(worker) ? atomic_load(&worker->slow_ns) + CALM : FL_NEVER;
}

void fl_lane_round(struct fl_worker *worker)
{
    struct fl_vm *vm = worker->is_lane ? lane_vm(worker) : worker->leaving;
    if (!vm)
        return;
    if (!worker->is_lane) {
        struct fl_worker *lane = fl_lane_take(worker->engine->lanes);
        worker->leaving = NULL;
        if (lane)
            lane_enter(worker, vm, lane);
        return;
    }
    if (worker->shard.now < fl_lane_next_due(worker) || vm->parks.count > 0)
        return;
    fl_worker_give_up(worker, vm, fl_worker_fewest(worker->engine));
    fl_lane_is_free(worker);
}
