// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/task.h"

#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/probe.h"
#include "engine/cache/frame_cache.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

#define PAUSE (100 * FL_NS_PER_US)
#define LONG_PAUSE (10 * FL_NS_PER_MS)

// The wait for one frame. Its life is that of the message, not of the VM: the VM may go first.
struct fl_task_wait {
    struct fl_waiter waiter;
    struct fl_task *task; // NULL once it has ended
    fl_task_came *came;
};

void fl_task_init(struct fl_task *task, struct fl_vm *vm, fl_task_slice *slice)
{
    *task = (struct fl_task){.vm = vm, .slice = slice};
    CDS_INIT_LIST_HEAD(&task->in_worker);
}

void fl_task_start(struct fl_shard *shard, struct fl_task *task)
{
    if (cds_list_empty(&task->in_worker))
        cds_list_add_tail(&task->in_worker, &shard->tasks);
}

bool fl_task_runs(const struct fl_task *task)
{
    return task->in_worker.next != &task->in_worker;
}

void fl_task_end(struct fl_task *task)
{
    cds_list_del_init(&task->in_worker);
    if (task->wait)
        task->wait->task = NULL;
    task->wait = NULL;
}

void fl_task_pause(struct fl_shard *shard, struct fl_task *task)
{
    task->not_before_ns = shard->now + PAUSE;
}

void fl_task_pause_long(struct fl_shard *shard, struct fl_task *task)
{
    task->not_before_ns = shard->now + LONG_PAUSE;
}

static void task_frame_came(void *owner, struct fl_mail *mail)
{
    struct fl_task_wait *wait = caa_container_of(mail, struct fl_task_wait, waiter.mail);
    struct fl_task *task = wait->task;
    fl_task_came *came = wait->came;
    int error = wait->waiter.error;
    if (wait->waiter.frame)
        fl_frame_unpin(wait->waiter.frame);
    free(wait);
    if (task) {
        task->wait = NULL;
        came(owner, task->vm, error); // may not come back
    }
}

static void wait_for(struct fl_shard *shard, struct fl_task *task, struct fl_frame_id id,
                     uint64_t taker, fl_task_came *came)
{
    struct fl_frame *frame = NULL;
    struct fl_task_wait *wait = calloc(1, sizeof(*wait));
    if (!wait) {
        fl_task_pause_long(shard, task);
        return;
    }
    wait->waiter.mail.deliver = task_frame_came;
    wait->waiter.box = &shard->mailbox;
    wait->waiter.taker = taker;
    wait->task = task;
    wait->came = came;
    int result = fl_cache_await(shard->cache, task->vm->image, id, &wait->waiter, &frame);
    if (result == 0) {
        task->wait = wait;
        return;
    }
    if (result == 1)
        fl_frame_unpin(frame); // it has just come: the next slice finds it
    else
        fl_task_pause_long(shard, task);
    free(wait);
}

void fl_task_wait_for(struct fl_shard *shard, struct fl_task *task, struct fl_frame_id id,
                      fl_task_came *came)
{
    wait_for(shard, task, id, 0, came);
}

void fl_task_wait_to_take(struct fl_shard *shard, struct fl_task *task, struct fl_frame_id id,
                          fl_task_came *came)
{
    wait_for(shard, task, id, task->vm->id, came);
}

bool fl_task_goes_on(struct fl_shard *shard, struct fl_task *task, enum fl_install result)
{
    switch (result) {
    case FL_INSTALL_DONE:
        return true;
    case FL_INSTALL_AGAIN:
        fl_task_pause(shard, task);
        break;
    case FL_INSTALL_SHORT:
        fl_task_pause_long(shard, task);
        break;
    case FL_INSTALL_GONE:
        fl_shard_vm_gone(shard, task->vm);
        break;
    case FL_INSTALL_FAILED:
        break;
    }
    return false;
}

void fl_task_replayed(struct fl_shard *shard, struct fl_vm *vm, uint64_t units)
{
    FL_PROBE(replay_row, vm->id, fl_vm_image_name(vm), units);
    fl_counter_add(&vm->replay.pages, units);
    fl_counter_add(&shard->stats->replayed_units, units);
}

void fl_task_run(struct fl_shard *shard, struct fl_task *task)
{
    if (fl_task_runs(task) && task->vm->phase != FL_VM_GONE)
        task->slice(shard, task->vm);
}

bool fl_tasks_run(struct fl_shard *shard)
{
    struct fl_task *task;
    struct fl_task *next;
    cds_list_for_each_entry_safe(task, next, &shard->tasks, in_worker)
    {
        if (task->vm->phase == FL_VM_GONE || !task->slice(shard, task->vm))
            continue;
        if (!cds_list_empty(&task->in_worker)) { // the others' turn
            cds_list_del(&task->in_worker);
            cds_list_add_tail(&task->in_worker, &shard->tasks);
        }
        return true;
    }
    return false;
}

uint64_t fl_tasks_next_due(const struct fl_shard *shard)
{
    uint64_t due = FL_NEVER;
    struct fl_task *task;
    cds_list_for_each_entry(task, &shard->tasks, in_worker)
    {
        if (task->not_before_ns > shard->now && task->not_before_ns < due)
            due = task->not_before_ns;
    }
    return due;
}
