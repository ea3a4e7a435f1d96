// SPDX-License-Identifier: Apache-2.0
#include "engine/worker/release.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/fill.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/serve/kill.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"
#include "engine/worker/fault.h"
#include "engine/worker/lane.h"
#include "engine/worker/worker.h"

// --- one VM ---

// A range in which anything cannot be registered (a file that the VMM has mapped over a part of its
// memory) is refused, and stays registered as a whole: so in halves, down to a page.
static int vm_unregister_piece(struct fl_vm *vm, uint64_t start, uint64_t pages)
{
    int error = fl_vm_unregister(vm, start, pages << vm->page_shift);
    uint64_t half = pages / 2;
    if (error != -EINVAL || half == 0)
        return error;
    error = vm_unregister_piece(vm, start, half);
    return error == -ENOMEM
               ? error
               : vm_unregister_piece(vm, start + (half << vm->page_shift), pages - half);
}

// The VM goes on without us: nothing is missing that would not be zeros. False if the kernel lacks
// memory for that (or the VM is gone, which it says in the same way): a thread that touches such a
// page would wait for ever.
static bool vm_unregister(struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        int error = vm_unregister_piece(vm, layout->region[i].base,
                                        layout->region[i].bytes >> layout->page_shift);
        if (error == -ENOMEM && fl_vm_alive(vm))
            return false;
        FL_CRASH_POINT("unregistered");
    }
    vm->fill.unregistered = true;
    vm->state->flags |= FL_VM_STATE_RELEASED;
    return true;
}

// A REMOVE that began before we unregistered still waits for its event to be read: leaving earlier
// would leave its thread in madvise() for ever, as the VMM holds the userfaultfd too.
static void vm_let_go(struct fl_shard *shard, struct fl_vm *vm)
{
    while (fl_inbox_turn(shard, vm)) {
    }
    if (fl_vm_removing(vm)) {
        fl_task_pause(shard, &vm->fill.task);
        return;
    }
    fl_task_end(&vm->fill.task);
    FL_CRASH_POINT("released");
    fl_log(FL_LOG_INFO, "event=release vm=%" PRIu64 " image=%s", vm->id, vm->state->image);
    fl_shard_vm_gone(shard, vm);
}

void fl_release_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->capture || vm->unprotect.runs) { // what is protected must not stay so
        fl_task_pause(shard, &vm->fill.task);
        return;
    }
    if (!vm->fill.unregistered) {
        if (!vm_unregister(vm)) {
            fl_task_pause_long(shard, &vm->fill.task);
            return;
        }
        fl_fill_report(shard, vm);
    }
    vm_let_go(shard, vm);
}

void fl_release_go_on(struct fl_shard *shard, struct fl_vm *vm)
{
    vm->phase = FL_VM_RELEASING;
    vm->fill.unregistered = true;
    fl_task_start(shard, &vm->fill.task);
}

// --- all of them ---

struct kill_order {
    struct fl_engine *engine;
    const char *reason;
};

struct release_mail {
    struct fl_mail mail;
    const char *kill_reason; // NULL: release
};

static void kill_or_release(struct fl_worker *worker, struct fl_vm *vm, const char *kill_reason)
{
    if (vm->phase == FL_VM_GONE)
        return;
    if (kill_reason) {
        fl_kill(&worker->engine->killer, vm, kill_reason);
    } else if (!vm->image) {
        // Nothing could make its memory whole.
        fl_kill(&worker->engine->killer, vm, "its handshake was refused, and the engine ends");
    } else if (vm->phase == FL_VM_SERVING) {
        vm->phase = FL_VM_RELEASING;
        fl_capture_end(vm, -ESHUTDOWN, "the server lets the VM go");
        fl_fill_begin(&worker->shard, vm, FL_FILL_NONZERO);
    }
}

static void order_deliver(void *owner, struct fl_mail *mail)
{
    struct fl_worker *worker = fl_worker_of(owner);
    struct release_mail *order = caa_container_of(mail, struct release_mail, mail);
    struct fl_vm *vm;
    struct fl_vm *next;
    cds_list_for_each_entry_safe(vm, next, &worker->owned, in_worker)
        kill_or_release(worker, vm, order->kill_reason);
    free(order);
}

static void order_drop(struct fl_mail *mail)
{
    free(caa_container_of(mail, struct release_mail, mail));
}

static void order_all(struct fl_engine *engine, const char *kill_reason)
{
    for (unsigned i = 0; i < fl_engine_workers(engine); i++) {
        struct release_mail *order = malloc(sizeof(*order));
        if (!order)
            continue; // the next order may find memory
        order->mail = (struct fl_mail){.deliver = order_deliver, .drop = order_drop};
        order->kill_reason = kill_reason;
        fl_mailbox_post(&fl_engine_worker(engine, i)->shard.mailbox, &order->mail);
    }
}

void fl_release_all(struct fl_engine *engine)
{
    order_all(engine, NULL);
}

// Mail does not reach its owner while the kernel makes that wait: what the owner would do then is
// done here, but for what is only the owner's. One that no worker has yet is ours.
static void kill_unreachable(void *arg, const struct fl_vm *constant)
{
    const struct kill_order *order = arg;
    struct fl_vm *vm = fl_vms_find(&order->engine->vms, constant->id);
    struct fl_shard *owner = vm ? atomic_load(&vm->owner) : NULL;
    if (vm && !owner)
        fl_kill(&order->engine->killer, vm, order->reason);
    else if (vm && (vm->state->flags & FL_VM_STATE_OWNER) &&
             fl_lane_blocked_ns(fl_worker_of(owner), fl_now()) > 0)
        syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0);
}

void fl_kill_all(struct fl_engine *engine, const char *reason)
{
    order_all(engine, reason);
    struct kill_order order = {engine, reason};
    fl_vms_each(&engine->vms, kill_unreachable, &order);
}
