// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The client's message becomes an order, which is mailed to the thread that
// owns the VM; what that thread tells is mailed here, and becomes a message to the client. So from
// FREEZE to the worker, and from the worker to FROZEN on the wire, it is one mail each.
//
//   client            control thread                       the VM's worker
//   CAPTURE      ->   a session, BEGIN                 ->  fl_capture_begin()
//   BEGUN        <-   ARMING (FAILED: ANSWER)          <-  tell()
//   PHASE        <-   READY                            <-
//   FREEZE       ->   FREEZE                           ->  fl_capture_freeze()
//   PHASE        <-   FROZEN, COPIED                   <-
//   COMMIT       ->   COMMIT                           ->  fl_capture_commit()
//   PHASE        <-   KEPT                             <-  (at once if it is not to be kept)
//   (leaves)     ->   CANCEL, if it was not committed  ->  fl_capture_cancel()
//
// A session is in the list until its worker has told its last word (`settled`), its order is back,
// and its client has gone; one that was KEPT stays, so that it is known of, until it is forgotten.
// Its client may leave, or be cut off, at any time: then it has failed, and its worker's FAILED
// says that it is undone.
#include "engine/accept/capture_session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/capture_order.h"
#include "engine/accept/capture_room.h"
#include "engine/ahead/capture.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/log.h"
#include "engine/link/channel.h"
#include "engine/vm/capture_counts.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

enum { ID_DIGITS = 64 };

static void undo(struct fl_capture_session *session)
{
    session->undo_wanted = session->order_out;
    if (!session->order_out)
        fl_capture_order_post(session, FL_CAPTURE_ORDER_CANCEL);
}

// --- the client ---

static void hang_up(struct fl_capture_session *session)
{
    if (session->source.fd < 0)
        return;
    fl_loop_unwatch(session->loop, &session->source);
    fl_close_later(session->source.fd);
    session->source.fd = -1;
}

// The few messages of a capture fit into any socket: one that is full belongs to a client that does
// not keep to the protocol, or the kernel lacks memory.
static bool send_client(struct fl_capture_session *session, const struct fl_message *message,
                        const int *fds)
{
    return session->source.fd >= 0 && fl_channel_send(session->source.fd, message, fds, false) == 0;
}

static bool send_begun(struct fl_capture_session *session)
{
    struct fl_message message = {.type = FL_MESSAGE_CAPTURE_BEGUN,
                                 .id = session->vm,
                                 .value = fl_capture_granted(session->capture),
                                 .slots = FL_CAPTURE_SLOTS,
                                 .mask = 1U << FL_CAPTURE_BOARD | 1U << FL_CAPTURE_BUFFER};
    const int fds[FL_CAPTURE_SLOTS] = {[FL_CAPTURE_BOARD] = fl_capture_board_fd(session->capture),
                                       [FL_CAPTURE_BUFFER] =
                                           fl_capture_buffer_fd(session->capture)};
    snprintf(message.text, sizeof(message.text), "%s", fl_capture_parent(session->capture));
    return send_client(session, &message, fds);
}

static bool send_phase(struct fl_capture_session *session, enum fl_capture_phase phase, int error,
                       const char *reason)
{
    struct fl_message message = {
        .type = FL_MESSAGE_CAPTURE_PHASE, .id = session->vm, .value = phase, .error = error};
    snprintf(message.text, sizeof(message.text), "%s", reason);
    return send_client(session, &message, NULL);
}

void fl_capture_answer(int socket, int error, const char *reason)
{
    struct fl_message message = {.type = FL_MESSAGE_ANSWER, .error = error};
    snprintf(message.text, sizeof(message.text), "%s", reason);
    fl_channel_send(socket, &message, NULL, false);
}

// --- its end ---

static void free_if_over(struct fl_capture_session *session)
{
    if (session->settled && !session->order_out && session->source.fd < 0 &&
        !fl_capture_session_is_kept(session))
        fl_capture_session_free(session);
}

void fl_capture_session_free(struct fl_capture_session *session)
{
    hang_up(session);
    cds_list_del(&session->link);
    fl_capture_unref(session->capture);
    free(session);
}

static void count_pages(const struct fl_capture_session *session)
{
    struct fl_capture_counts *counts = &session->engine->counts->captures;
    const struct fl_capture_board *board = session->capture->board;
    counts->by_fault += atomic_load(&board->by_fault);
    counts->by_sweep += atomic_load(&board->by_sweep);
    counts->write_faults += atomic_load(&board->write_faults);
}

// Once. What was published stays so, and is no failure.
static void note_failure(struct fl_capture_session *session, int error, const char *reason)
{
    enum fl_capture_blame blame = session->begun ? fl_capture_blame_of(error) : FL_BLAME_REFUSED;
    session->failed = true;
    if (!session->committed) {
        session->engine->counts->captures.failed[blame]++;
        count_pages(session);
        fl_log(FL_LOG_WARNING,
               "event=capture_failed vm=%" PRIu64 " image=%s blame=%s reason=\"%s\"", session->vm,
               session->image, fl_capture_blame_name(blame), reason);
    }
    if (session->begun)
        send_phase(session, FL_CAPTURE_FAILED, error, reason);
    else if (session->source.fd >= 0)
        fl_capture_answer(session->source.fd, error, reason);
    hang_up(session);
}

void fl_capture_session_fail(struct fl_capture_session *session, int error, const char *reason)
{
    if (session->failed)
        return;
    snprintf(session->undo_reason, sizeof(session->undo_reason), "%s", reason);
    session->undo_error = error;
    note_failure(session, error, reason);
    if (!session->settled)
        undo(session);
    free_if_over(session);
}

void fl_capture_session_leave(struct fl_capture_session *session, const char *reason)
{
    if (!session->failed && !session->committed)
        note_failure(session, -ESHUTDOWN, reason);
    hang_up(session);
}

void fl_capture_session_forget(struct fl_capture_session *session)
{
    snprintf(session->undo_reason, sizeof(session->undo_reason), "it was told to");
    session->undo_error = -ECANCELED;
    session->forgotten = true;
    fl_log(FL_LOG_INFO, "event=capture_forgotten vm=%" PRIu64 " image=%s", session->vm,
           session->image);
    fl_capture_order_post(session, FL_CAPTURE_ORDER_FORGET);
    free_if_over(session);
}

// --- what its worker tells ---

static void order_is_back(struct fl_capture_session *session)
{
    if (session->undo_wanted && !session->settled)
        undo(session);
    session->undo_wanted = session->undo_wanted && session->order_out;
    free_if_over(session);
}

// What was kept before is this one's from now on.
static void take_the_place(const struct fl_capture_session *session)
{
    struct fl_capture_session *other;
    struct fl_capture_session *next;
    cds_list_for_each_entry_safe(other, next, session->all, link)
    {
        if (other == session || other->vm != session->vm || other->phase != FL_CAPTURE_KEPT)
            continue;
        other->forgotten = true;
        free_if_over(other);
    }
}

static bool began(struct fl_capture_session *session)
{
    session->begun = true;
    take_the_place(session);
    fl_log(FL_LOG_INFO, "event=capture_begun vm=%" PRIu64 " image=%s keep_armed=%s while_paused=%s",
           session->vm, session->image,
           fl_capture_granted(session->capture) & FL_CAPTURE_KEEP_ARMED ? "yes" : "no",
           fl_capture_granted(session->capture) & FL_CAPTURE_WHILE_PAUSED ? "yes" : "no");
    return send_begun(session);
}

static bool pass_on(struct fl_capture_session *session, enum fl_capture_phase phase)
{
    struct fl_capture_counts *counts = &session->engine->counts->captures;
    bool keeps = fl_capture_granted(session->capture) & FL_CAPTURE_KEEP_ARMED;
    if (phase == FL_CAPTURE_ARMING)
        return began(session);
    if (phase == FL_CAPTURE_FROZEN)
        fl_histogram_add(&counts->freeze_ns, atomic_load(&session->capture->board->freeze_ns));
    session->settled = phase == FL_CAPTURE_KEPT || (phase == FL_CAPTURE_COPIED && !keeps);
    bool sent = send_phase(session, phase, 0, "");
    if (phase == FL_CAPTURE_KEPT)
        hang_up(session);
    return sent || phase == FL_CAPTURE_KEPT;
}

static void told(struct fl_capture_session *session, enum fl_capture_phase phase)
{
    session->phase = phase;
    if (phase == FL_CAPTURE_FAILED) {
        session->settled = true;
        if (!session->failed)
            note_failure(session, session->error, session->reason);
    } else if (!pass_on(session, phase) && !session->failed && !session->committed) {
        fl_capture_session_fail(session, -EPIPE, "the client does not take what it is told");
        return;
    }
    free_if_over(session);
}

// --- what the client says ---

static bool freeze(struct fl_capture_session *session)
{
    if (session->phase != FL_CAPTURE_READY || session->order_out)
        return false;
    session->phase = FL_CAPTURE_FREEZING;
    fl_capture_order_post(session, FL_CAPTURE_ORDER_FREEZE);
    return true;
}

static void end_well(struct fl_capture_session *session)
{
    const struct fl_capture_board *board = session->capture->board;
    session->committed = true;
    session->engine->counts->captures.completed++;
    count_pages(session);
    fl_log(FL_LOG_INFO,
           "event=captured vm=%" PRIu64 " image=%s as=%s pages=%" PRIu64 " by_fault=%" PRIu64
           " pause_us=%" PRIu64 " ms=%" PRIu64,
           session->vm, session->image, session->published + ID_DIGITS + 1,
           atomic_load(&board->by_fault) + atomic_load(&board->by_sweep),
           atomic_load(&board->by_fault), atomic_load(&board->freeze_ns) / FL_NS_PER_US,
           (fl_now() - session->since_ns) / FL_NS_PER_MS);
}

// "CONTENTID NAME".
static bool is_published(const char *text)
{
    return strlen(text) < FL_CAPTURE_PARENT && strspn(text, "0123456789abcdef") == ID_DIGITS &&
           text[ID_DIGITS] == ' ' && fl_name_valid(text + ID_DIGITS + 1);
}

static bool commit(struct fl_capture_session *session, const char *text)
{
    if (session->phase != FL_CAPTURE_COPIED || session->committed || session->order_out ||
        !is_published(text))
        return false;
    snprintf(session->published, sizeof(session->published), "%s", text);
    end_well(session);
    if (!session->settled) {
        fl_capture_order_post(session, FL_CAPTURE_ORDER_COMMIT);
        return true;
    }
    send_phase(session, FL_CAPTURE_KEPT, 0, "");
    hang_up(session);
    return true;
}

static void client_left(struct fl_capture_session *session)
{
    if (!session->committed)
        fl_capture_session_fail(session, -ECANCELED,
                                "its client closed the connection before the image was published");
    else {
        hang_up(session);
        free_if_over(session);
    }
}

static void client_ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_capture_session *session =
        caa_container_of(source, struct fl_capture_session, source);
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    int got = fl_channel_receive(source->fd, &message, fds, false);
    if (got == -EAGAIN)
        return;
    if (got == 1)
        fl_channel_close_fds(fds);
    if (got == 0 || got == -ECONNRESET) {
        client_left(session);
        return;
    }
    bool in_turn = got == 1 && message.mask == 0 &&
                   ((message.type == FL_MESSAGE_CAPTURE_FREEZE && freeze(session)) ||
                    (message.type == FL_MESSAGE_CAPTURE_COMMIT && commit(session, message.text)));
    if (!in_turn)
        fl_capture_session_fail(session, -EPROTO, "the client said something out of turn");
    else
        free_if_over(session);
}

// --- its beginning ---

int fl_capture_session_begin(struct fl_engine *engine, struct fl_loop *loop,
                             struct cds_list_head *all, const struct fl_vm *vm, uint64_t flags,
                             int socket, struct fl_error *ret_error)
{
    struct fl_capture_session *session = calloc(1, sizeof(*session));
    if (!session)
        return fl_fail_plain(ret_error, -ENOMEM, "the host is out of memory");
    const struct fl_capture_wish wish = {.flags = flags,
                                         .ahead_bytes = fl_capture_room(&engine->options, all),
                                         .tell = fl_capture_tell_control,
                                         .arg = session};
    session->engine = engine;
    session->loop = loop;
    session->all = all;
    session->told = told;
    session->order_is_back = order_is_back;
    session->vm = vm->id;
    session->since_ns = fl_now();
    snprintf(session->image, sizeof(session->image), "%s", fl_vm_image_name(vm));
    session->source = (struct fl_source){.fd = socket, .ready = client_ready};
    int error = fl_capture_new(vm, &wish, &session->capture, ret_error);
    if (!error) {
        error = fl_loop_watch(loop, &session->source, EPOLLIN);
        if (error)
            fl_fail(ret_error, error, "the server cannot wait for the client");
    }
    if (error) {
        fl_capture_unref(session->capture);
        free(session);
        return error;
    }
    cds_list_add_tail(&session->link, all);
    fl_capture_order_post(session, FL_CAPTURE_ORDER_BEGIN);
    return 0;
}
