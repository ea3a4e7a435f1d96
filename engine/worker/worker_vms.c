// SPDX-License-Identifier: Apache-2.0
//
// The VMs of a worker: how they come, go, and are given up to another.
#include <errno.h>
#include <inttypes.h>
#include <sys/epoll.h>

#include <urcu/compiler.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/collapse.h"
#include "engine/ahead/fill.h"
#include "engine/ahead/first_pages.h"
#include "engine/ahead/replay.h"
#include "engine/ahead/unprotect.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/host/uffd.h"
#include "engine/serve/install.h"
#include "engine/serve/park.h"
#include "engine/serve/task.h"
#include "engine/vm/recording.h"
#include "engine/worker/engine.h"
#include "engine/worker/fault.h"
#include "engine/worker/lane.h"
#include "engine/worker/release.h"
#include "engine/worker/worker.h"

void fl_worker_make_hot(struct fl_worker *worker, struct fl_vm *vm)
{
    vm->last_active_ns = worker->shard.now;
    if (vm->hot || vm->phase == FL_VM_GONE)
        return;
    vm->hot = true;
    worker->hot_count++;
    cds_list_add_tail(&vm->in_hot, &worker->shard.hot);
}

static void make_cold(struct fl_worker *worker, struct fl_vm *vm)
{
    if (!vm->hot)
        return;
    vm->hot = false;
    worker->hot_count--;
    cds_list_del(&vm->in_hot);
}

void fl_worker_cool_down(struct fl_worker *worker, struct fl_vm *vm)
{
    if (!vm->unwatched || vm->phase == FL_VM_GONE)
        make_cold(worker, vm);
}

// Another thread served it before, and may have ended at any instruction: what it read and did not
// act on is in the inbox, and every fault that it read is asked anew once its waiter is woken.
static void vm_succeed(struct fl_worker *worker, struct fl_vm *vm)
{
    fl_install_succeed(vm);
    fl_inbox_replay(&worker->shard, vm);
    fl_uffd_wake_all(vm->uffd);
    FL_CRASH_POINT("woken");
    fl_unprotect_succeed(&worker->shard, vm);
    if (vm->state->flags & FL_VM_STATE_RELEASED)
        fl_release_go_on(&worker->shard, vm);
}

// Edge-triggered: a hot VM is read in every round until it has nothing, and from then on the next
// fault raises an event.
static void worker_take_over(void *owner, struct fl_mail *mail)
{
    struct fl_worker *worker = fl_worker_of(owner);
    struct fl_vm *vm = caa_container_of(mail, struct fl_vm, mail);
    worker->shard.doubtful += vm->doubtful;
    worker->shard.recorded += fl_vm_is_recorded(vm);
    if (vm->phase == FL_VM_GONE) { // before it was given up
        cds_list_add_tail(&vm->in_worker, &worker->shard.dead);
        return;
    }
    cds_list_add_tail(&vm->in_worker, &worker->owned);
    int error = fl_shard_watch(&worker->shard, vm->uffd, EPOLLIN | EPOLLET, &vm->watch_faults);
    vm->unwatched = error != 0;
    worker->unwatched += vm->unwatched;
    if (!error && vm->pidfd >= 0)
        error = fl_shard_watch(&worker->shard, vm->pidfd, EPOLLIN, &vm->watch_exit);
    if (!error && vm->socket >= 0)
        error = fl_shard_watch(&worker->shard, vm->socket, EPOLLRDHUP, &vm->watch_socket);
    if (error) // for want of memory or watches: read it in each round, and do not sleep for long
        fl_log(FL_LOG_ERROR, "event=watch_failed vm=%" PRIu64 " errno=%d", vm->id, -error);
    if (error || vm->pidfd < 0 || vm->death != FL_DEATH_NONE)
        fl_shard_doubt(&worker->shard, vm);
    if (vm->inherited || vm->moved)
        vm_succeed(worker, vm);
    if (vm->moved) {
        fl_fill_resume(&worker->shard, vm);
        fl_capture_resume(&worker->shard, vm);
        fl_replay_resume(&worker->shard, vm);
        fl_collapse_resume(&worker->shard, vm);
    }
    fl_first_pages_begin(&worker->shard, vm);
    vm->moved = false;
    fl_worker_make_hot(worker, vm);
}

void fl_worker_attach(struct fl_worker *worker, struct fl_vm *vm)
{
    atomic_fetch_add(&worker->vms, 1);
    vm->owner = &worker->shard;
    vm->mail.deliver = worker_take_over;
    fl_mailbox_post(&worker->shard.mailbox, &vm->mail);
}

// It is in no list of the worker's any more, and waits for nothing that is mailed there.
static void worker_forget(struct fl_worker *worker, struct fl_vm *vm)
{
    cds_list_del(&vm->in_worker);
    make_cold(worker, vm);
    worker->shard.doubtful -= vm->doubtful;
    worker->unwatched -= vm->unwatched;
    vm->unwatched = false;
    if (worker->leaving == vm)
        worker->leaving = NULL;
    fl_parks_end_all(vm);
    fl_shard_unwatch(&worker->shard, vm->uffd);
    fl_shard_unwatch(&worker->shard, vm->pidfd);
    fl_shard_unwatch(&worker->shard, vm->socket);
    atomic_fetch_sub(&worker->vms, 1);
}

static void vm_dispose(void *control, struct fl_mail *mail)
{
    struct fl_engine *engine = control;
    engine->ops->dispose(engine, caa_container_of(mail, struct fl_vm, mail));
}

// At the end of a round, when nothing on the stack refers to them any more.
void fl_worker_bury(struct fl_worker *worker)
{
    while (!cds_list_empty(&worker->shard.dead)) {
        struct fl_vm *vm = cds_list_first_entry(&worker->shard.dead, struct fl_vm, in_worker);
        worker_forget(worker, vm);
        fl_vm_recording_end(&worker->shard, vm);
        fl_capture_vm_gone(&worker->shard, vm);
        fl_task_end(&vm->fill.task);
        fl_prefetch_end(&vm->prefetch, &worker->shard.prefetch);
        fl_replay_end(&worker->shard, vm);
        fl_first_pages_suspend(vm);
        fl_collapse_end(&worker->shard, vm);
        if (worker->is_lane)
            fl_lane_is_free(worker);
        vm->mail.deliver = vm_dispose;
        fl_mailbox_post(worker->shard.control, &vm->mail);
    }
}

// What it waited for comes again, as after a predecessor's death: threads that wait are woken by
// the new owner, and fault again.
void fl_worker_give_up(struct fl_worker *worker, struct fl_vm *vm, struct fl_worker *to)
{
    worker_forget(worker, vm);
    worker->shard.recorded -= fl_vm_is_recorded(vm);
    fl_fill_suspend(vm);
    fl_capture_suspend(vm);
    fl_replay_suspend(&worker->shard, vm);
    fl_first_pages_suspend(vm);
    fl_collapse_suspend(&worker->shard, vm);
    vm->moved = true;
    fl_worker_attach(to, vm);
}
