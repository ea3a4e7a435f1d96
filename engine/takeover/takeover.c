// SPDX-License-Identifier: Apache-2.0
#include "engine/takeover/takeover.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/attach.h"
#include "engine/accept/connections.h"
#include "engine/accept/listen.h"
#include "engine/accept/peer.h"
#include "engine/accept/refuse.h"
#include "engine/base/log.h"
#include "engine/files/files.h"
#include "engine/link/endpoint_memfd.h"
#include "engine/link/inherited_sockets.h"
#include "engine/link/keeper_link.h"
#include "engine/serve/kill.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

void fl_takeover_init(struct fl_takeover *takeover, struct fl_acceptor *acceptor)
{
    takeover->acceptor = acceptor;
    takeover->mode = 0;
    fl_inherited_images_init(&takeover->images, acceptor->engine);
    fl_inherited_counters_init(&takeover->counters, acceptor->engine);
}

void fl_takeover_complete(struct fl_takeover *takeover)
{
    fl_inherited_images_end(&takeover->images);
}

void fl_takeover_stop(struct fl_takeover *takeover)
{
    fl_inherited_images_stop(&takeover->images);
}

// --- VMs ---

static struct fl_peer peer_of(int fds[FL_CHANNEL_FDS])
{
    struct fl_peer peer = {
        .uffd = fds[FL_VM_UFFD], .pidfd = fds[FL_VM_PIDFD], .socket = fds[FL_VM_SOCKET]};
    fds[FL_VM_UFFD] = fds[FL_VM_PIDFD] = fds[FL_VM_SOCKET] = -1;
    return peer;
}

// The VM without an image yet, in the table. NULL with *ret_error.
static struct fl_vm *take_vm(struct fl_takeover *takeover, int fds[FL_CHANNEL_FDS], bool record,
                             int *ret_error)
{
    struct fl_vm_state *state = NULL;
    struct fl_vm *vm = NULL;
    *ret_error = fds[FL_VM_STATE] < 0 || fds[FL_VM_UFFD] < 0
                     ? -EINVAL
                     : fl_vm_state_open(fds[FL_VM_STATE], &state);
    if (*ret_error)
        return NULL;
    struct fl_peer peer = peer_of(fds);
    peer.pid = state->pid;
    vm = fl_attach_state(takeover->acceptor->engine, &peer, fds[FL_VM_STATE], state, record);
    if (!vm) {
        *ret_error = -ENOMEM;
        fl_vm_state_unmap(state);
        fds[FL_VM_UFFD] = peer.uffd;
        fds[FL_VM_PIDFD] = peer.pidfd;
        fds[FL_VM_SOCKET] = peer.socket;
        return NULL;
    }
    fds[FL_VM_STATE] = -1;
    return vm;
}

// What another version of faultline wrote is not damaged: that version can go on with it. So this
// is no engine for it, and an upgrade to this one goes back.
static _Noreturn void leave_to_another(const struct fl_message *message)
{
    fl_log(FL_LOG_ERROR,
           "event=adopt_failed kind=%u id=%" PRIu64
           " reason=\"it is of another version of faultline\"",
           message->kind, message->id);
    fl_log_stop();
    _exit(1);
}

static void adopt_vm(struct fl_takeover *takeover, const struct fl_message *message,
                     int fds[FL_CHANNEL_FDS])
{
    int error = 0;
    struct fl_vm *vm = take_vm(takeover, fds, true, &error);
    if (vm) {
        // Another connection of that number would be taken for the one that it comes from.
        fl_keeper_link_seen_id(takeover->acceptor->engine->keeper_link, vm->state->connection);
        vm->held = message->other == FL_VM_HELD;
        if (vm->state->image[0] == '\0')
            fl_attach_adopted(takeover->acceptor->engine, vm, NULL);
        else
            fl_inherited_images_wait(&takeover->images, vm);
        return;
    }
    if (error == -EPROTONOSUPPORT)
        leave_to_another(message);
    struct fl_peer peer = peer_of(fds);
    fl_log(FL_LOG_ERROR, "event=adopt_failed vm=%" PRIu64 " reason=\"%s\"", message->id,
           strerror(-error));
    // A process may wait there all the same: it is told so, by poison.
    fl_keep_unreadable(takeover->acceptor->engine, &peer, message->id);
}

void fl_takeover_freed(struct fl_takeover *takeover, uint64_t id)
{
    struct fl_vm *vm = fl_vms_find(&takeover->acceptor->engine->vms, id);
    if (vm && vm->held)
        fl_attach_freed(takeover->acceptor->engine, vm);
}

// What a listener or a connection is for.
static void check_description(const struct fl_message *message, const int fds[FL_CHANNEL_FDS])
{
    struct fl_endpoint description;
    if (fds[1] >= 0 && fl_endpoint_read(fds[1], &description) == -EPROTONOSUPPORT)
        leave_to_another(message);
}

// --- all of them ---

void fl_takeover_record(struct fl_takeover *takeover, const struct fl_message *message,
                        int fds[FL_CHANNEL_FDS])
{
    switch (message->kind) {
    case FL_RECORD_COUNTERS:
        fl_inherited_counters_add(&takeover->counters, message->id, &fds[0]);
        break;
    case FL_RECORD_MODE:
        takeover->mode = message->value;
        break;
    case FL_RECORD_IMAGE:
        fl_keeper_link_seen_id(takeover->acceptor->engine->keeper_link, message->id);
        fl_inherited_images_add(&takeover->images, message, fds);
        break;
    case FL_RECORD_VM:
        adopt_vm(takeover, message, fds);
        break;
    case FL_RECORD_CONNECTION:
        fl_keeper_link_seen_id(takeover->acceptor->engine->keeper_link, message->id);
        check_description(message, fds);
        // The keeper was killed while a VM took its place: the VM it is.
        if (fl_attach_comes_from(takeover->acceptor->engine, message->id))
            fl_keeper_link_drop(takeover->acceptor->engine->keeper_link, FL_RECORD_CONNECTION,
                                message->id);
        else
            fl_connections_adopt(takeover->acceptor, message->id, fds);
        break;
    case FL_RECORD_LISTENER:
        fl_keeper_link_seen_id(takeover->acceptor->engine->keeper_link, message->id);
        check_description(message, fds);
        fl_listener_adopt(takeover->acceptor, message->id, fds);
        break;
    case FL_RECORD_FILES:
        fl_files_adopt(takeover->acceptor->engine->files, message->value, fds);
        break;
    case FL_RECORD_TEMPLATE:
        fl_inherited_images_add_template(&takeover->images, message, fds);
        break;
    case FL_RECORD_SOCKET:
        fl_inherited_sockets_take(takeover->acceptor->sockets, message->id, &fds[0]);
        break;
    default:
        break;
    }
}

// --- orphans ---

static const char served_already[] = "this server serves it already";

static void serve_condemned(struct fl_takeover *takeover, struct fl_vm *vm, uint64_t flags)
{
    if (flags & FL_RESCUE_KILL)
        fl_kill(&takeover->acceptor->engine->killer, vm, "faultline rescue --kill");
    fl_attach_adopted(takeover->acceptor->engine, vm, NULL);
}

static const char *state_reason(int error)
{
    return error == -EPROTONOSUPPORT ? "its state is of another version of faultline"
                                     : strerror(-error);
}

void fl_takeover_check(struct fl_takeover *takeover, int fds[FL_CHANNEL_FDS],
                       void (*answer)(void *arg, int error, const char *text), void *arg)
{
    struct fl_vm_state *state = NULL;
    if (fds[FL_VM_STATE] < 0 || fds[FL_VM_UFFD] < 0) {
        answer(arg, -EINVAL, strerror(EINVAL));
        return;
    }
    if (fl_attach_find(takeover->acceptor->engine, fds[FL_VM_UFFD])) {
        answer(arg, -EEXIST, served_already);
        return;
    }
    int error = fl_vm_state_open(fds[FL_VM_STATE], &state);
    bool later = !error && state->image[0] != '\0';
    if (later) {
        error =
            fl_inherited_images_check(&takeover->images, state->image, &state->layout, answer, arg);
        later = !error;
    }
    if (state)
        fl_vm_state_unmap(state);
    if (!later)
        answer(arg, error, error ? state_reason(error) : "");
}

void fl_takeover_orphan(struct fl_takeover *takeover, int fds[FL_CHANNEL_FDS], uint64_t flags,
                        void (*answer)(void *arg, int error, const char *text), void *arg)
{
    int error = 0;
    if (fl_attach_find(takeover->acceptor->engine, fds[FL_VM_UFFD])) {
        answer(arg, -EEXIST, served_already);
        return;
    }
    struct fl_vm *vm = take_vm(takeover, fds, false, &error);
    if (!vm) {
        answer(arg, error, state_reason(error));
        return;
    }
    if (vm->pidfd >= 0) // it took the userfaultfd out of that process, and saw its memory there
        vm->state->flags |= FL_VM_STATE_OWNER;
    if (vm->state->image[0] == '\0') {
        answer(arg, 0, "");
        serve_condemned(takeover, vm, flags);
        return;
    }
    vm->state->image_record = 0;
    error = fl_inherited_images_orphan(&takeover->images, vm, answer, arg);
    if (error) {
        fl_attach_forget(takeover->acceptor->engine, vm);
        answer(arg, error, strerror(-error));
    }
}
