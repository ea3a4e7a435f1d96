// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/replay_order.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/ahead/collapse.h"
#include "engine/ahead/replay.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/io_pool.h"
#include "engine/host/host_memory.h"
#include "engine/image/images.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

#define BUSY_PAUSE (2 * FL_NS_PER_MS)

struct order {
    struct fl_io_job job;
    struct fl_mail mail;
    struct fl_engine *engine;
    struct fl_shard *shard;
    uint64_t vm_id; // not the VM: it may be gone first
    struct fl_image *image;
    struct fl_plan *plan;
    bool huge; // it is about its pages of 2 MiB alone
};

static bool expected(const struct fl_engine *engine, const struct fl_vm *vm)
{
    return engine->options.replay && !engine->options.populate && engine->images && vm->image &&
           !fl_vm_is_recorded(vm) && !(vm->state->flags & FL_VM_STATE_RELEASED);
}

void fl_replay_expect(struct fl_engine *engine, struct fl_vm *vm)
{
    // What a predecessor has done is not begun again.
    bool begins =
        expected(engine, vm) && (!vm->inherited || (vm->state->flags & FL_VM_STATE_REPLAY) != 0);
    vm->state->flags &= ~(uint64_t)FL_VM_STATE_REPLAY;
    vm->state->flags |= begins ? FL_VM_STATE_REPLAY : 0;
    vm->replay.state = begins ? FL_REPLAY_LOADING : FL_REPLAY_NONE;
}

static void looked(void *owner, struct fl_mail *mail)
{
    struct order *order = caa_container_of(mail, struct order, mail);
    struct fl_vm *vm = fl_vms_find(&order->engine->vms, order->vm_id);
    struct fl_shard *its = vm ? atomic_load(&vm->owner) : NULL;
    if (its && its != owner) { // it has moved meanwhile
        fl_mailbox_post(&its->mailbox, mail);
        return;
    }
    if (vm && vm->phase != FL_VM_GONE && order->huge) {
        fl_collapse_follow(owner, vm, order->plan);
        fl_plan_unref(order->plan);
    } else if (vm && vm->phase != FL_VM_GONE) {
        fl_collapse_begin(owner, vm, order->plan);
        fl_replay_begin(owner, vm, order->plan);
    } else {
        fl_plan_unref(order->plan);
    }
    free(order);
}

static void drop_order(struct fl_mail *mail)
{
    struct order *order = caa_container_of(mail, struct order, mail);
    fl_plan_unref(order->plan);
    free(order);
}

// Reader thread.
static uint64_t look(struct fl_io_job *job)
{
    struct order *order = caa_container_of(job, struct order, job);
    int error = fl_images_plan(order->engine->images, order->image, &order->plan);
    if (error == -EBUSY)
        return fl_now() + BUSY_PAUSE;
    fl_image_unref(order->image);
    FL_CRASH_POINT("plan_found");
    fl_mailbox_post(&order->shard->mailbox, &order->mail);
    return 0;
}

static struct order *new_order(struct fl_engine *engine, struct fl_vm *vm)
{
    struct order *order = calloc(1, sizeof(*order));
    if (order)
        *order = (struct order){.mail = {.deliver = looked, .drop = drop_order},
                                .engine = engine,
                                .shard = vm->owner,
                                .vm_id = vm->id};
    return order;
}

static void look_for_plan(struct order *order)
{
    const struct fl_vm *vm = fl_vms_find(&order->engine->vms, order->vm_id);
    order->image = fl_image_ref(vm->image);
    order->job.run = look;
    fl_host_memory_wanted(&order->engine->memory, fl_now());
    fl_io_pool_submit(order->engine->io_pool, &order->job);
}

// Whether it is expected is known from its state, which its worker owns by now: nothing is lost if
// that is asked again.
void fl_replay_order(struct fl_engine *engine, struct fl_vm *vm)
{
    if (vm->replay.state != FL_REPLAY_LOADING && vm->collapse.state != FL_COLLAPSE_WAITING)
        return;
    struct order *order = new_order(engine, vm); // NULL: it is served without
    if (order)
        look_for_plan(order);
}

int fl_collapse_order(struct fl_engine *engine, struct fl_vm *vm)
{
    struct order *order = new_order(engine, vm);
    if (!order)
        return -ENOMEM;
    order->huge = true;
    if (vm->state->flags & FL_VM_STATE_HUGE)
        look_for_plan(order);
    else
        fl_mailbox_post(&order->shard->mailbox, &order->mail);
    return 0;
}
