// SPDX-License-Identifier: Apache-2.0
//
// The loop of a worker: what it does in a round, and when it blocks.
#include <errno.h>
#include <inttypes.h>
#include <sys/epoll.h>

#include <urcu/compiler.h>

#include "engine/ahead/fill.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/host/procfs.h"
#include "engine/serve/kill.h"
#include "engine/serve/park.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/recording.h"
#include "engine/worker/lane.h"
#include "engine/worker/spin.h"
#include "engine/worker/visit.h"
#include "engine/worker/worker.h"

enum { EVENTS = 64, TASK_EVERY = 4 };
#define POLL_AFTER (20 * FL_NS_PER_US) // a call of epoll for each of a few faults is too many
#define UNWATCHED_EVERY FL_NS_PER_MS
#define LOOK_EVERY (250 * FL_NS_PER_MS)

static void vm_look(struct fl_worker *worker, struct fl_vm *vm)
{
    if (!fl_vm_alive(vm)) {
        fl_shard_vm_gone(&worker->shard, vm);
    } else if (vm->doubtful) {
        fl_kill_look(&worker->shard, vm);
        fl_worker_make_hot(worker, vm);
    }
}

// The process has ended, but something may still use its memory (a kernel worker of KVM, a child
// that shares it): the descriptor stays until the memory is gone.
static void process_exited(struct fl_worker *worker, struct fl_vm *vm)
{
    fl_shard_unwatch(&worker->shard, vm->pidfd);
    fl_shard_doubt(&worker->shard, vm);
    vm_look(worker, vm);
}

// Asks the userfaultfd itself at every 2 MiB of the region, and at its end.
static bool region_unregistered(struct fl_vm *vm, const struct fl_region *region)
{
    for (uint64_t at = 0; at < region->bytes; at += FL_HUGE_BYTES) {
        if (fl_vm_registered(vm, region->base + at))
            return false;
    }
    return !fl_vm_registered(vm, region->base + region->bytes - fl_vm_page_bytes(vm));
}

// A process that lives on may have unmapped what it had us serve: then no thread can wait for us
// any more. Its own maps prove nothing alone: it may have done the handshake for another process.
static bool memory_unmapped(struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        if (!region_unregistered(vm, &layout->region[i]))
            return false;
    }
    return layout->regions > 0 && vm->state->pid > 0 &&
           fl_proc_unmapped((pid_t)vm->state->pid, layout);
}

// Firecracker before 1.12 closes at once, later ones when they exit; an exec closes it too, and so
// does a client that is done.
static void socket_hung_up(struct fl_worker *worker, struct fl_vm *vm)
{
    fl_shard_unwatch(&worker->shard, vm->socket);
    if (memory_unmapped(vm))
        fl_shard_vm_gone(&worker->shard, vm);
    if (vm->pidfd < 0) // nothing else will tell us of its end
        fl_shard_doubt(&worker->shard, vm);
    vm_look(worker, vm);
}

// --- the loop ---

static bool watch_dispatch(struct fl_worker *worker, const struct fl_watch *watch)
{
    if (watch->kind == FL_WATCH_MAILBOX || watch->vm->phase == FL_VM_GONE)
        return false;
    switch (watch->kind) {
    case FL_WATCH_FAULTS:
        fl_worker_make_hot(worker, watch->vm);
        return false;
    case FL_WATCH_EXIT:
        process_exited(worker, watch->vm);
        return true;
    case FL_WATCH_SOCKET:
        socket_hung_up(worker, watch->vm);
        return true;
    case FL_WATCH_MAILBOX:
        break;
    }
    return false;
}

static bool worker_poll(struct fl_worker *worker, const struct timespec *timeout)
{
    struct epoll_event events[EVENTS];
    bool any = false;
    int count = epoll_pwait2(worker->shard.epoll_fd, events, EVENTS, timeout, NULL);
    for (int i = 0; i < count; i++)
        any |= watch_dispatch(worker, events[i].data.ptr);
    return any;
}

static void worker_look(struct fl_worker *worker)
{
    struct fl_vm *vm;
    struct fl_vm *next;
    if (worker->shard.now < worker->shard.look_ns)
        return;
    uint64_t oldest = FL_NEVER;
    worker->shard.look_ns = worker->shard.now + LOOK_EVERY;
    cds_list_for_each_entry_safe(vm, next, &worker->owned, in_worker)
    {
        if (vm->doubtful)
            vm_look(worker, vm);
        if (fl_vm_is_recorded(vm))
            fl_vm_recording_look(&worker->shard, vm);
        if (vm->phase != FL_VM_GONE && vm->parks.count > 0)
            fl_parks_expire(vm, worker->shard.now);
        uint64_t since = fl_parks_first(vm);
        oldest = since < oldest ? since : oldest;
    }
    fl_counter_set(&worker->shard.parked_ns, oldest == FL_NEVER ? 0 : oldest);
}

static uint64_t worker_next_due(struct fl_worker *worker)
{
    uint64_t due = fl_parks_next_due(&worker->shard);
    uint64_t task = fl_tasks_next_due(&worker->shard);
    due = task < due ? task : due;
    if ((worker->shard.doubtful > 0 || worker->shard.recorded > 0 ||
         fl_counter_get(&worker->shard.stats->parked) > 0) &&
        worker->shard.look_ns < due)
        due = worker->shard.look_ns;
    uint64_t lane = fl_lane_next_due(worker);
    due = lane < due ? lane : due;
    if (worker->unwatched > 0 && worker->shard.now + UNWATCHED_EVERY < due)
        due = worker->shard.now + UNWATCHED_EVERY;
    return due;
}

static void worker_block(struct fl_worker *worker)
{
    struct fl_vm *vm;
    struct fl_vm *next;
    cds_list_for_each_entry_safe(vm, next, &worker->shard.hot, in_hot)
        fl_worker_cool_down(worker, vm);
    uint64_t due = worker_next_due(worker);
    if (due <= fl_now() || !fl_mailbox_sleep(&worker->shard.mailbox))
        return;
    struct timespec left = fl_until(fl_now(), due);
    fl_counter_set(&worker->shard.round_ns, 0);
    fl_rcu_offline();
    // Watches stay valid while we block: only this thread retires VMs.
    struct epoll_event events[EVENTS];
    int count =
        epoll_pwait2(worker->shard.epoll_fd, events, EVENTS, due == FL_NEVER ? NULL : &left, NULL);
    fl_rcu_online();
    fl_mailbox_awake(&worker->shard.mailbox);
    worker->shard.now = fl_now();
    for (int i = 0; i < count; i++)
        watch_dispatch(worker, events[i].data.ptr);
}

void fl_worker_work(struct fl_worker *worker)
{
    static const struct timespec at_once = {0};
    struct fl_spin spin;
    uint64_t polled_ns = 0;
    fl_spin_init(&spin, worker->shard.options->spin_us * FL_NS_PER_US);
    fl_counter_set(&worker->shard.batch_ns, 0); // of a thread before, which was taken from
    for (unsigned round = 0; !worker->stopping && !worker->leave_for; round++) {
        worker->shard.now = fl_now();
        fl_counter_set(&worker->shard.round_ns, worker->shard.now);
        bool busy = fl_mailbox_drain(&worker->shard.mailbox, &worker->shard);
        if (worker->shard.now - polled_ns >= POLL_AFTER || worker->hot_count == 0) {
            polled_ns = worker->shard.now;
            busy |= worker_poll(worker, &at_once);
        }
        bool served = fl_visit_hot(worker);
        busy |= fl_parks_run_due(&worker->shard);
        if ((!busy && !served) || round % TASK_EVERY == 0)
            busy |= fl_tasks_run(&worker->shard);
        worker_look(worker);
        fl_worker_bury(worker);
        fl_lane_round(worker);
        fl_rcu_quiescent();
        if (served)
            fl_spin_served(&spin, worker->shard.now);
        else if (!busy && !fl_spin_on(&spin, worker->shard.now))
            worker_block(worker);
    }
}

// A lane that the kernel held up could not serve its faults: they count as waiting since slow_ns.
uint64_t fl_worker_oldest_wait(struct fl_worker *worker)
{
    struct fl_vm *vm;
    uint64_t oldest = FL_NEVER;
    cds_list_for_each_entry(vm, &worker->owned, in_worker)
    {
        uint64_t since = fl_parks_oldest(vm);
        oldest = since < oldest ? since : oldest;
    }
    uint64_t slow = atomic_load(&worker->slow_ns);
    oldest = oldest > slow ? oldest : slow;
    return oldest < worker->shard.now ? worker->shard.now - oldest : 0;
}
