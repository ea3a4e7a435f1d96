// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A thread that is woken by a copy runs at once, most often on the CPU of the
// worker that woke it, and faults again while all that this worker knows of its VM is still in the
// CPU's caches. So a visit reads a VM until it has nothing more: that is what serves the most
// faults a second, and half of them within microseconds. But a VM that goes on faulting would make
// all others wait, so a visit ends after a time that is shorter the more VMs have messages. What
// the last of them waits is about a round: ROUND, whatever the others do.
//
// The hot list is a queue: a VM that may have more goes to its end, behind those that epoll told of
// meanwhile. The worker comes back to its mail, epoll and deadlines after a TURN, in the middle of
// a round or not.
#include "engine/worker/visit.h"

#include "engine/base/clock.h"
#include "engine/serve/task.h"
#include "engine/worker/fault.h"
#include "engine/worker/worker.h"

#define ROUND (4 * FL_NS_PER_MS)
#define TURN (500 * FL_NS_PER_US)
#define VISIT_LEAST (10 * FL_NS_PER_US)
#define VISIT_MOST TURN

// So many hot VMs are read again when epoll tells of them. Of fewer, each is read for the length of
// a spin before that: then the next fault needs no call of epoll.
enum { CROWD = 4 };

enum visit {
    VISIT_NOTHING, // it had no messages
    VISIT_EMPTIED, // it has no more
    VISIT_MORE,    // it may have more
};

static uint64_t visit_length(const struct fl_worker *worker)
{
    uint64_t share = ROUND / (worker->hot_count > 0 ? worker->hot_count : 1);
    share = share < VISIT_MOST ? share : VISIT_MOST;
    return share > VISIT_LEAST ? share : VISIT_LEAST;
}

// The clock is what the reading of messages has left in `now`.
static enum visit visit_read(struct fl_worker *worker, struct fl_vm *vm, uint64_t length)
{
    if (!fl_inbox_turn(&worker->shard, vm))
        return VISIT_NOTHING;
    uint64_t began = worker->shard.now;
    do {
        if (vm->phase == FL_VM_GONE || worker->shard.now - began >= length)
            return VISIT_MORE;
    } while (fl_inbox_turn(&worker->shard, vm));
    return VISIT_EMPTIED;
}

// One batch. A VM whose working set is on its way gets a slice of that with it, as the pages that
// it touches next are most likely there: where all CPU time goes into faults, replay would else
// never come to its turn.
static enum visit visit_read_some(struct fl_worker *worker, struct fl_vm *vm)
{
    if (!fl_inbox_turn(&worker->shard, vm))
        return VISIT_NOTHING;
    if (vm->replay.plan && vm->page_shift == FL_PAGE_SHIFT)
        fl_task_run(&worker->shard, &vm->replay.task);
    return VISIT_MORE;
}

// Of a VM that is being captured messages may be left unread on purpose (fl_capture_may_read()).
static bool vm_visit(struct fl_worker *worker, struct fl_vm *vm, uint64_t length, bool crowd)
{
    bool some = vm->replay.plan || vm->capture;
    enum visit visit = some ? visit_read_some(worker, vm) : visit_read(worker, vm, length);
    if (visit != VISIT_NOTHING)
        vm->last_active_ns = worker->shard.now;
    uint64_t spin_ns = worker->shard.options->spin_us * FL_NS_PER_US;
    if (visit != VISIT_MORE && (crowd || worker->shard.now - vm->last_active_ns > spin_ns))
        fl_worker_cool_down(worker, vm);
    return visit != VISIT_NOTHING;
}

bool fl_visit_hot(struct fl_worker *worker)
{
    struct fl_shard *shard = &worker->shard;
    uint64_t began = shard->now;
    uint64_t length = visit_length(worker);
    bool crowd = worker->hot_count > CROWD;
    bool any = false;
    for (unsigned left = worker->hot_count; left > 0 && shard->now - began < TURN; left--) {
        struct fl_vm *vm = cds_list_first_entry(&shard->hot, struct fl_vm, in_hot);
        cds_list_del(&vm->in_hot);
        cds_list_add_tail(&vm->in_hot, &shard->hot);
        if (vm->phase != FL_VM_GONE)
            any |= vm_visit(worker, vm, length, crowd);
    }
    return any;
}
