// SPDX-License-Identifier: Apache-2.0
#include "engine/worker/limit_watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/rcu.h"
#include "engine/host/memory_limit.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane.h"
#include "engine/worker/worker.h"

enum { VMS_A_LOOK = 256, EVERY_MS = 500 };

// Of one VM, between two looks of the thread, which is no RCU reader while it looks.
struct limited {
    uint64_t id;
    pid_t pid;
    bool met;
    int error;
    uint64_t pages;
    struct fl_memory_limit limit;
};

struct fl_limit_watch {
    struct fl_engine *engine;
    struct fl_cgroup_mounts mounts;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ends; // under the lock
    // The thread's.
    unsigned count;
    struct limited vm[VMS_A_LOOK];
};

// To the VM's owner, which forwards it if that has changed.
struct order {
    struct fl_mail mail;
    struct fl_engine *engine;
    uint64_t vm_id;
};

static void order_deliver(void *owner, struct fl_mail *mail)
{
    struct order *order = caa_container_of(mail, struct order, mail);
    struct fl_vm *vm = fl_vms_find(&order->engine->vms, order->vm_id);
    struct fl_shard *its = vm ? atomic_load(&vm->owner) : NULL;
    if (its && its != owner) {
        fl_mailbox_post(&its->mailbox, mail);
        return;
    }
    if (its)
        fl_lane_wanted(fl_worker_of(owner), vm);
    free(order);
}

static void order_drop(struct fl_mail *mail)
{
    free(caa_container_of(mail, struct order, mail));
}

static bool limits_go_on(struct fl_limit_watch *limits)
{
    pthread_mutex_lock(&limits->lock);
    bool goes_on = !limits->ends;
    pthread_mutex_unlock(&limits->lock);
    return goes_on;
}

// Those that pages were filled for since they were looked at, and that have a process here.
static void limits_collect(void *arg, const struct fl_vm *constant)
{
    struct fl_limit_watch *limits = arg;
    struct fl_vm *vm = fl_vms_find(&limits->engine->vms, constant->id);
    pid_t pid = vm ? (pid_t)vm->state->pid : 0;
    if (!vm || pid <= 0 || limits->count == VMS_A_LOOK || vm->phase == FL_VM_GONE)
        return;
    uint64_t pages = fl_vm_filled(vm);
    uint64_t now = pages + fl_counter_get(&vm->state->counters.faults);
    if (now == vm->limit.filled)
        return;
    vm->limit.filled = now;
    limits->vm[limits->count++] = (struct limited){.id = vm->id, .pid = pid, .pages = pages};
}

static void limits_note(struct fl_limit_watch *limits, struct limited *found)
{
    struct fl_vm *vm = fl_vms_find(&limits->engine->vms, found->id);
    if (!vm)
        return;
    struct fl_vm_limit *limit = &vm->limit;
    if (found->error) {
        atomic_store(&limit->looked, true);
        return;
    }
    // The first look only learns how often it was met before.
    found->met = limit->known && found->limit.hits > limit->hits;
    limit->known = true;
    limit->hits = found->limit.hits;
    atomic_store(&limit->bytes, found->limit.limit);
    atomic_store(&limit->used, found->limit.used);
    atomic_store(&limit->pages, found->pages);
    atomic_store(&limit->looked, true); // behind the others
    if (!atomic_load(&limit->named) && found->limit.limit) {
        snprintf(limit->cgroup, sizeof(limit->cgroup), "%s", found->limit.cgroup);
        limit->version = found->limit.version;
        atomic_store(&limit->named, true);
    }
    struct order *order = found->met ? malloc(sizeof(*order)) : NULL;
    struct fl_shard *owner = atomic_load(&vm->owner);
    if (found->met)
        atomic_fetch_add(&limit->met, 1);
    if (!order || !owner) {
        free(order);
        return;
    }
    *order = (struct order){.mail = {.deliver = order_deliver, .drop = order_drop},
                            .engine = limits->engine,
                            .vm_id = vm->id};
    fl_mailbox_post(&owner->mailbox, &order->mail);
}

// True if pages were filled since the last time.
static bool limits_look(struct fl_limit_watch *limits)
{
    limits->count = 0;
    fl_rcu_online();
    fl_vms_each(&limits->engine->vms, limits_collect, limits);
    fl_rcu_offline();
    for (unsigned i = 0; i < limits->count; i++) {
        struct limited *vm = &limits->vm[i];
        vm->error = fl_memory_limit(&limits->mounts, vm->pid, &vm->limit);
    }
    fl_rcu_online();
    for (unsigned i = 0; i < limits->count; i++)
        limits_note(limits, &limits->vm[i]);
    fl_rcu_offline();
    return limits->count > 0;
}

// The watcher of calls wakes it, and goes on doing so for as long as there are calls: what a look
// misses by a moment is seen by the next one.
static void limits_sleep(struct fl_limit_watch *limits)
{
    struct fl_sleeper *sleeper = &limits->engine->limit_watcher;
    fl_sleeper_prepare(sleeper);
    if (!limits_look(limits) && limits_go_on(limits))
        fl_sleeper_sleep(sleeper);
    fl_sleeper_awake(sleeper);
}

// Whether it goes on.
static bool limits_pause(struct fl_limit_watch *limits)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += EVERY_MS * (long)FL_NS_PER_MS;
    until.tv_sec += until.tv_nsec / (long)FL_NS_PER_S;
    until.tv_nsec %= (long)FL_NS_PER_S;
    pthread_mutex_lock(&limits->lock);
    while (!limits->ends && pthread_cond_timedwait(&limits->changed, &limits->lock, &until) == 0) {
    }
    bool goes_on = !limits->ends;
    pthread_mutex_unlock(&limits->lock);
    return goes_on;
}

static void *limits_main(void *arg)
{
    struct fl_limit_watch *limits = arg;
    pthread_setname_np(pthread_self(), "fl-limits");
    rcu_register_thread();
    fl_rcu_offline();
    while (limits_pause(limits)) {
        if (!limits_look(limits))
            limits_sleep(limits);
    }
    fl_rcu_online();
    rcu_unregister_thread();
    return NULL;
}

int fl_limit_watch_start(struct fl_engine *engine, struct fl_limit_watch **ret_limits)
{
    pthread_condattr_t attributes;
    struct fl_limit_watch *limits = calloc(1, sizeof(*limits));
    if (!limits)
        return -ENOMEM;
    limits->engine = engine;
    fl_cgroup_mounts(&limits->mounts);
    pthread_mutex_init(&limits->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&limits->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = -pthread_create(&limits->thread, NULL, limits_main, limits);
    if (error) {
        free(limits);
        return error;
    }
    *ret_limits = limits;
    return 0;
}

void fl_limit_watch_stop(struct fl_limit_watch *limits)
{
    if (!limits)
        return;
    pthread_mutex_lock(&limits->lock);
    limits->ends = true;
    pthread_cond_signal(&limits->changed);
    pthread_mutex_unlock(&limits->lock);
    fl_sleeper_wake(&limits->engine->limit_watcher);
    pthread_join(limits->thread, NULL);
    pthread_cond_destroy(&limits->changed);
    pthread_mutex_destroy(&limits->lock);
    free(limits);
}
