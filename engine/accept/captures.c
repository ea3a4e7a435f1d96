// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/captures.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/capture_order.h"
#include "engine/accept/capture_session.h"
#include "engine/base/close_thread.h"
#include "engine/base/log.h"
#include "engine/link/channel.h"
#include "engine/vm/capture_counts.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

struct fl_captures {
    struct fl_acceptor *acceptor;
    struct cds_list_head all; // struct fl_capture_session
};

struct fl_captures *fl_captures_new(struct fl_acceptor *acceptor)
{
    struct fl_captures *captures = calloc(1, sizeof(*captures));
    if (!captures)
        return NULL;
    captures->acceptor = acceptor;
    CDS_INIT_LIST_HEAD(&captures->all);
    return captures;
}

void fl_captures_free(struct fl_captures *captures)
{
    struct fl_capture_session *session;
    struct fl_capture_session *next;
    if (!captures)
        return;
    cds_list_for_each_entry_safe(session, next, &captures->all, link)
        fl_capture_session_free(session);
    free(captures);
}

// --- a client ---

static const struct fl_capture_session *running(const struct fl_captures *captures, uint64_t vm)
{
    const struct fl_capture_session *session = fl_captures_find(captures, vm);
    return session && !fl_capture_session_is_kept(session) ? session : NULL;
}

// What is to be seen from here; the rest is found by the VM's worker.
static int refusal(const struct fl_captures *captures, const struct fl_message *message,
                   const struct fl_vm *vm, struct fl_error *ret_error)
{
    const uint64_t known = FL_CAPTURE_FULL | FL_CAPTURE_KEEP_ARMED | FL_CAPTURE_WHILE_PAUSED;
    const struct fl_capture_session *other = running(captures, message->id);
    if (message->value & ~known)
        return fl_fail_plain(ret_error, -EINVAL,
                             "VM %" PRIu64 " cannot be captured as it is asked for: this server "
                             "does not know all that was asked",
                             message->id);
    if (!vm)
        return fl_fail_plain(ret_error, -ESRCH, "there is no VM %" PRIu64, message->id);
    if (!vm->image || !atomic_load(&vm->owner))
        return fl_fail_plain(ret_error, -EAGAIN,
                             "VM %" PRIu64
                             " is not served: its handshake was refused, or its image "
                             "is not there (yet)",
                             message->id);
    if (fl_service_releases(captures->acceptor->state))
        return fl_fail_plain(ret_error, -ESHUTDOWN,
                             "the server lets its VMs go: VM %" PRIu64 " cannot be captured",
                             message->id);
    if (other)
        return fl_fail_plain(ret_error, -EBUSY,
                             other->failed ? "a capture of VM %" PRIu64 " has just failed, and is "
                                             "being undone: try again"
                                           : "a capture of VM %" PRIu64 " runs already",
                             message->id);
    return 0;
}

void fl_captures_take(struct fl_captures *captures, const struct fl_message *message, int socket)
{
    struct fl_engine *engine = captures->acceptor->engine;
    struct fl_error reason = {""};
    const struct fl_vm *vm = fl_vms_find(&engine->vms, message->id);
    int error = refusal(captures, message, vm, &reason);
    if (!error)
        error = fl_capture_session_begin(engine, captures->acceptor->loop, &captures->all, vm,
                                         message->value, socket, &reason);
    if (!error)
        return;
    engine->counts->captures.failed[FL_BLAME_REFUSED]++;
    fl_log(FL_LOG_WARNING, "event=capture_refused vm=%" PRIu64 " image=%s reason=\"%s\"",
           message->id, vm ? fl_vm_image_name(vm) : "-", reason.text);
    fl_capture_answer(socket, error, reason.text);
    fl_close_later(socket);
}

// --- all of them ---

void fl_captures_leave(struct fl_captures *captures)
{
    struct fl_capture_session *session;
    if (!captures)
        return;
    cds_list_for_each_entry(session, &captures->all, link)
        fl_capture_session_leave(session, "the engine is being replaced");
}

bool fl_captures_cancel(struct fl_captures *captures, uint64_t vm)
{
    struct fl_capture_session *session;
    struct fl_capture_session *next;
    bool any = false;
    if (!captures)
        return false;
    cds_list_for_each_entry_safe(session, next, &captures->all, link)
    {
        if (session->vm != vm || session->failed)
            continue;
        any = true;
        if (fl_capture_session_is_kept(session))
            fl_capture_session_forget(session);
        else if (!session->committed)
            fl_capture_session_fail(session, -ECANCELED, "it was cancelled by the control API");
    }
    struct fl_engine *engine = captures->acceptor->engine;
    const struct fl_vm *served = any ? NULL : fl_vms_find(&engine->vms, vm);
    return any || (served && fl_capture_order_unprotect(engine, served));
}

void fl_captures_vm_gone(struct fl_captures *captures, uint64_t vm)
{
    struct fl_capture_session *session;
    struct fl_capture_session *next;
    if (!captures)
        return;
    cds_list_for_each_entry_safe(session, next, &captures->all, link)
    {
        if (session->vm == vm && fl_capture_session_is_kept(session))
            fl_capture_session_free(session);
    }
}

// --- what there is ---

const struct fl_capture_session *fl_captures_find(const struct fl_captures *captures, uint64_t vm)
{
    const struct fl_capture_session *session;
    const struct fl_capture_session *kept = NULL;
    if (!captures)
        return NULL;
    cds_list_for_each_entry(session, &captures->all, link)
    {
        if (session->vm != vm)
            continue;
        if (!fl_capture_session_is_kept(session))
            return session;
        kept = session;
    }
    return kept;
}

void fl_captures_each(const struct fl_captures *captures,
                      void (*fn)(void *arg, const struct fl_capture_session *session), void *arg)
{
    const struct fl_capture_session *session;
    if (!captures)
        return;
    cds_list_for_each_entry(session, &captures->all, link) fn(arg, session);
}

static void count_one(void *arg, const struct fl_capture_session *session)
{
    struct fl_captures_now *now = arg;
    if (fl_capture_session_is_kept(session))
        now->kept++;
    else if (!session->failed)
        now->running++;
}

struct fl_captures_now fl_captures_count(const struct fl_captures *captures)
{
    struct fl_captures_now now = {0};
    fl_captures_each(captures, count_one, &now);
    return now;
}
