// SPDX-License-Identifier: Apache-2.0
//
// A worker may be taken from in the middle of an order (vm_call.h): so the order's mail is on its
// way back before the order is obeyed, and the session may be gone by then.
#include "engine/accept/capture_order.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/unprotect.h"
#include "engine/base/crash_point.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

// --- in the thread that owns the VM ---

static void told_came(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_capture_told *told = caa_container_of(mail, struct fl_capture_told, mail);
    told->session->told(told->session, (enum fl_capture_phase)(told - told->session->mail));
}

void fl_capture_tell_control(void *arg, enum fl_capture_phase phase, int error, const char *reason)
{
    struct fl_capture_session *session = arg;
    struct fl_capture_told *told = &session->mail[phase];
    if (phase == FL_CAPTURE_FAILED) {
        session->error = error;
        snprintf(session->reason, sizeof(session->reason), "%s", reason);
    }
    *told = (struct fl_capture_told){.mail.deliver = told_came, .session = session};
    fl_mailbox_post(&session->engine->control, &told->mail);
}

// An order, taken out of its session, which may be freed once its mail is on the way back.
struct order {
    enum fl_capture_order what;
    struct fl_capture *capture;
    int error;
    char text[FL_CAPTURE_REASON];
};

// No more of it than the order is about: the control thread may write the reason for the next one.
static void read_order(const struct fl_capture_session *session, struct order *ret_order)
{
    const char *text = "";
    *ret_order = (struct order){.what = session->order, .capture = session->capture};
    if (session->order == FL_CAPTURE_ORDER_COMMIT)
        text = session->published;
    if (session->order == FL_CAPTURE_ORDER_CANCEL || session->order == FL_CAPTURE_ORDER_FORGET) {
        ret_order->error = session->undo_error;
        text = session->undo_reason;
    }
    snprintf(ret_order->text, sizeof(ret_order->text), "%s", text);
}

static void obey(struct fl_shard *shard, struct fl_vm *vm, const struct order *order)
{
    switch (order->what) {
    case FL_CAPTURE_ORDER_BEGIN:
        FL_CRASH_POINT("capture_beginning");
        fl_capture_begin(shard, vm, order->capture);
        break;
    case FL_CAPTURE_ORDER_FREEZE:
        FL_CRASH_POINT("capture_freezing");
        fl_capture_freeze(shard, vm, order->capture);
        break;
    case FL_CAPTURE_ORDER_COMMIT:
        FL_CRASH_POINT("capture_committing");
        fl_capture_commit(shard, vm, order->capture, order->text);
        break;
    case FL_CAPTURE_ORDER_CANCEL:
        FL_CRASH_POINT("capture_cancelling");
        fl_capture_cancel(shard, vm, order->capture, order->error, order->text);
        break;
    case FL_CAPTURE_ORDER_FORGET:
        FL_CRASH_POINT("capture_forgetting");
        fl_capture_end(vm, order->error, order->text);
        break;
    }
}

static void order_came_back(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_capture_session *session =
        caa_container_of(mail, struct fl_capture_session, order_mail);
    session->order_out = false;
    session->order_is_back(session);
}

// A capture that is not the VM's any more may be freed by now; it has told of its end.
static void order_came(void *owner, struct fl_mail *mail)
{
    struct fl_capture_session *session =
        caa_container_of(mail, struct fl_capture_session, order_mail);
    struct fl_shard *shard = owner;
    struct order order;
    struct fl_vm *vm = fl_vms_find(&session->engine->vms, session->vm);
    struct fl_shard *its = vm ? atomic_load(&vm->owner) : NULL;
    if (its && its != shard) { // it has moved meanwhile
        fl_mailbox_post(&its->mailbox, mail);
        return;
    }
    bool begins = session->order == FL_CAPTURE_ORDER_BEGIN;
    bool there = vm && vm->phase != FL_VM_GONE && (begins || vm->capture == session->capture);
    if (!there && begins)
        fl_capture_tell_control(session, FL_CAPTURE_FAILED, -ESRCH, "the VM has gone");
    read_order(session, &order);
    mail->deliver = order_came_back;
    fl_mailbox_post(shard->control, mail);
    if (there)
        obey(shard, vm, &order);
}

// --- orders, in the control thread ---

void fl_capture_order_post(struct fl_capture_session *session, enum fl_capture_order order)
{
    struct fl_vm *vm = fl_vms_find(&session->engine->vms, session->vm);
    struct fl_shard *owner = vm ? atomic_load(&vm->owner) : NULL;
    if (!owner)
        return; // it has gone, and has told so
    session->order = order;
    session->order_out = true;
    session->order_mail = (struct fl_mail){.deliver = order_came};
    fl_mailbox_post(&owner->mailbox, &session->order_mail);
}

// --- without a capture ---

struct unprotect_order {
    struct fl_mail mail;
    struct fl_engine *engine;
    uint64_t vm;
};

static void unprotect_order_came(void *owner, struct fl_mail *mail)
{
    struct unprotect_order *order = caa_container_of(mail, struct unprotect_order, mail);
    struct fl_vm *vm = fl_vms_find(&order->engine->vms, order->vm);
    struct fl_shard *its = vm ? atomic_load(&vm->owner) : NULL;
    if (its && its != owner) { // it has moved meanwhile
        fl_mailbox_post(&its->mailbox, mail);
        return;
    }
    free(order);
    if (vm && vm->phase == FL_VM_SERVING && !vm->capture && !vm->unprotect.runs)
        fl_unprotect_begin(owner, vm, NULL);
}

static void drop_unprotect_order(struct fl_mail *mail)
{
    free(caa_container_of(mail, struct unprotect_order, mail));
}

bool fl_capture_order_unprotect(struct fl_engine *engine, const struct fl_vm *vm)
{
    struct fl_shard *owner = atomic_load(&vm->owner);
    struct unprotect_order *order = owner ? malloc(sizeof(*order)) : NULL;
    if (!order)
        return false;
    *order = (struct unprotect_order){
        .mail = {.deliver = unprotect_order_came, .drop = drop_unprotect_order},
        .engine = engine,
        .vm = vm->id};
    fl_mailbox_post(&owner->mailbox, &order->mail);
    return true;
}
