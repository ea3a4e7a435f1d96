// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The engine starts no process (base/call_lists.h): it makes a pair of sockets
// and has the keeper run the command, with one of the two as its standard input and output. The
// answer to the client is whatever can be read from the other, as libmicrohttpd asks for more
// (on_more()). When nothing is there, the connection is suspended until there is. Nothing is kept
// here, so a client that does not read holds up its own command alone: that waits no longer than
// its --max-pause, and libmicrohttpd cuts the client off.
//
// A suspended connection is not looked at by libmicrohttpd: that the client has gone is seen by its
// socket, which is watched here, too. The order is freed with the answer (on_end()), which is when
// libmicrohttpd lets go of the connection: with it goes our end of the pair, and the command sees
// that.
#include "engine/control/checkpoints.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>
#include <urcu/list.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/captures.h"
#include "engine/accept/keeper_state.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/link/keeper_link.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

enum { STATE_BYTES = 16, LINE_BYTES = 64, WORDS_BYTES = 256, BLOCK = 4096 };

struct fl_checkpoints {
    struct fl_acceptor *acceptor;
    struct cds_list_head all;
    unsigned count;
    bool went_on; // one of the clients was resumed
};

struct fl_checkpoint {
    struct cds_list_head link;
    struct fl_checkpoints *in;
    struct fl_checkpoint_of of;
    char name[FL_IMAGE_NAME_BYTES];
    uint64_t since_ns;
    struct MHD_Connection *client;
    struct fl_source hangup;  // the client's socket: the client has gone
    struct fl_source command; // our end of the pair: it has said something; -1: closed
    bool suspended;           // the client; the command is watched, then
    bool gone;                // the client
    char state[STATE_BYTES];  // the last event that the command has told, or that it was answered
    // The line that is being told, as far as it fits.
    char line[LINE_BYTES];
    size_t used;
    bool whole; // no line is begun
    // What is said when the command has ended without a last event.
    char words[WORDS_BYTES];
    size_t words_at;
};

struct fl_checkpoints *fl_checkpoints_new(struct fl_acceptor *acceptor)
{
    struct fl_checkpoints *checkpoints = calloc(1, sizeof(*checkpoints));
    if (!checkpoints)
        return NULL;
    checkpoints->acceptor = acceptor;
    CDS_INIT_LIST_HEAD(&checkpoints->all);
    return checkpoints;
}

void fl_checkpoints_free(struct fl_checkpoints *checkpoints)
{
    free(checkpoints);
}

bool fl_checkpoints_went_on(struct fl_checkpoints *checkpoints)
{
    bool went_on = checkpoints->went_on;
    checkpoints->went_on = false;
    return went_on;
}

static struct fl_loop *loop_of(const struct fl_checkpoint *checkpoint)
{
    return checkpoint->in->acceptor->loop;
}

// --- what the command says ---

static const char *const told[] = {"begun",  "ready",      "pause",  "resume", "resumed",
                                   "frozen", "restorable", "copied", "done",   "failed"};

static bool is_over(const struct fl_checkpoint *checkpoint)
{
    return strcmp(checkpoint->state, "done") == 0 || strcmp(checkpoint->state, "failed") == 0;
}

static void set_state(struct fl_checkpoint *checkpoint, const char *state)
{
    snprintf(checkpoint->state, sizeof(checkpoint->state), "%s", state);
}

// {"event":"EVENT"...
static void note_line(struct fl_checkpoint *checkpoint)
{
    static const char head[] = "{\"event\":\"";
    const char *event = checkpoint->line + sizeof(head) - 1;
    checkpoint->line[checkpoint->used] = '\0';
    checkpoint->used = 0;
    if (strncmp(checkpoint->line, head, sizeof(head) - 1) != 0)
        return;
    for (unsigned i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        size_t length = strlen(told[i]);
        if (strncmp(event, told[i], length) == 0 && event[length] == '"')
            set_state(checkpoint, told[i]);
    }
}

static void note(struct fl_checkpoint *checkpoint, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        checkpoint->whole = data[i] == '\n';
        if (checkpoint->whole)
            note_line(checkpoint);
        else if (checkpoint->used < sizeof(checkpoint->line) - 1)
            checkpoint->line[checkpoint->used++] = data[i];
    }
}

static void close_command(struct fl_checkpoint *checkpoint)
{
    if (checkpoint->command.fd >= 0)
        close(checkpoint->command.fd);
    checkpoint->command.fd = -1;
}

// The client hears the end in any case.
static void say_last(struct fl_checkpoint *checkpoint, const char *reason)
{
    snprintf(checkpoint->words, sizeof(checkpoint->words),
             "%s{\"event\":\"failed\",\"reason\":\"%s\"}\n", checkpoint->whole ? "" : "\n", reason);
    set_state(checkpoint, "failed");
}

static const char *why_ended(const struct fl_checkpoint *checkpoint)
{
    if (checkpoint->state[0])
        return "the command that takes the checkpoint has ended";
    return "the command that takes the checkpoint has not started: the log may say why, or the "
           "keeper is of a version that knows no such order (faultline upgrade --keeper)";
}

// Bytes for the client; 0 at the end; -EAGAIN.
static ssize_t hear(struct fl_checkpoint *checkpoint, char *buffer, size_t size)
{
    ssize_t got =
        checkpoint->command.fd < 0 ? 0 : recv(checkpoint->command.fd, buffer, size, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (got > 0) {
        note(checkpoint, buffer, (size_t)got);
        return got;
    }
    close_command(checkpoint);
    if (!is_over(checkpoint))
        say_last(checkpoint, why_ended(checkpoint));
    size_t left = strlen(checkpoint->words + checkpoint->words_at);
    left = left < size ? left : size;
    memcpy(buffer, checkpoint->words + checkpoint->words_at, left);
    checkpoint->words_at += left;
    return (ssize_t)left;
}

// --- the client ---

static void go_on(struct fl_checkpoint *checkpoint)
{
    if (!checkpoint->suspended)
        return;
    if (checkpoint->command.fd >= 0)
        fl_loop_unwatch(loop_of(checkpoint), &checkpoint->command);
    checkpoint->suspended = false;
    checkpoint->in->went_on = true;
    MHD_resume_connection(checkpoint->client);
}

static void on_said(struct fl_source *source, uint32_t events)
{
    (void)events;
    go_on(caa_container_of(source, struct fl_checkpoint, command));
}

static void on_hangup(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_checkpoint *checkpoint = caa_container_of(source, struct fl_checkpoint, hangup);
    fl_loop_unwatch(loop_of(checkpoint), source);
    source->fd = -1;
    checkpoint->gone = true;
    go_on(checkpoint);
}

// libmicrohttpd can send more.
static ssize_t on_more(void *arg, uint64_t at, char *buffer, size_t size)
{
    (void)at;
    struct fl_checkpoint *checkpoint = arg;
    if (checkpoint->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    ssize_t got = hear(checkpoint, buffer, size);
    if (got == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (got > 0)
        return got;
    if (fl_loop_watch(loop_of(checkpoint), &checkpoint->command, EPOLLIN) != 0)
        return MHD_CONTENT_READER_END_WITH_ERROR; // the host is out of memory
    checkpoint->suspended = true;
    MHD_suspend_connection(checkpoint->client);
    return 0;
}

// libmicrohttpd has let go of the answer, and never suspends a connection then.
static void on_end(void *arg)
{
    struct fl_checkpoint *checkpoint = arg;
    if (checkpoint->hangup.fd >= 0)
        fl_loop_unwatch(loop_of(checkpoint), &checkpoint->hangup);
    close_command(checkpoint);
    cds_list_del(&checkpoint->link);
    checkpoint->in->count--;
    free(checkpoint);
}

void fl_checkpoints_release(struct fl_checkpoints *checkpoints)
{
    struct fl_checkpoint *checkpoint;
    cds_list_for_each_entry(checkpoint, &checkpoints->all, link)
    {
        checkpoint->gone = true;
        go_on(checkpoint);
    }
}

// --- its beginning ---

// The status of the refusal; 0: it may begin.
static unsigned refusal(struct fl_checkpoints *checkpoints, const struct fl_checkpoint_order *order,
                        struct fl_error *ret_error)
{
    const struct fl_acceptor *acceptor = checkpoints->acceptor;
    const struct fl_checkpoint_of *of = &order->of;
    const struct fl_capture_session *other =
        of->process ? NULL : fl_captures_find(acceptor->engine->captures, of->number);
    char reason[FL_LACK_REASON];
    char text[FL_CHECKPOINT_OF_TEXT];
    if (!of->process && !fl_vms_find(&acceptor->engine->vms, of->number)) {
        fl_fail_plain(ret_error, -ESRCH, "there is no VM %" PRIu64 " that is served", of->number);
        return MHD_HTTP_NOT_FOUND;
    }
    if (fl_checkpoints_find(checkpoints, of) || (other && other->phase != FL_CAPTURE_KEPT)) {
        fl_fail_plain(ret_error, -EBUSY, "a checkpoint of %s is being taken already",
                      fl_checkpoint_of_text(of, text));
        return MHD_HTTP_CONFLICT;
    }
    if (!fl_keeper_link_any(acceptor->engine->keeper_link)) {
        fl_fail_plain(ret_error, -ENOTCONN,
                      "the engine has no keeper, which would start the "
                      "command");
    } else if (fl_keeper_is_stopped(acceptor->engine)) {
        fl_keeper_stopped_reason(acceptor->engine, reason, sizeof(reason));
        fl_fail_plain(ret_error, -EAGAIN, "%s", reason);
    } else if (checkpoints->count >= FL_CHECKPOINTS_MOST) {
        fl_fail_plain(ret_error, -EAGAIN, "%d checkpoints are being taken already",
                      FL_CHECKPOINTS_MOST);
    } else {
        return 0;
    }
    return MHD_HTTP_SERVICE_UNAVAILABLE;
}

// Our end of the command's standard input and output, or -errno. The command is of our own version,
// whatever is installed by now.
static int start_command(const struct fl_acceptor *acceptor, const char *arguments)
{
    int pair[2];
    int program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (program < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        int error = -errno;
        if (program >= 0)
            close(program);
        return error;
    }
    int error =
        fl_keeper_link_run_command(acceptor->engine->keeper_link, pair[1], program, arguments);
    close(program);
    close(pair[1]);
    if (error)
        close(pair[0]);
    return error ? error : pair[0];
}

static int watch_client(struct fl_checkpoint *checkpoint)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(checkpoint->client, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info)
        return -EBADF;
    checkpoint->hangup = (struct fl_source){.fd = info->connect_fd, .ready = on_hangup};
    int error = fl_loop_watch(loop_of(checkpoint), &checkpoint->hangup, 0); // EPOLLHUP it always is
    if (error)
        checkpoint->hangup.fd = -1;
    return error;
}

// Takes the order, also if it fails. The connection is not used again: the clock of slow clients
// (control_clients.h) does not run for it any more.
static enum MHD_Result answer(struct fl_checkpoint *checkpoint)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, on_more, checkpoint, on_end);
    if (!response) {
        on_end(checkpoint);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", "application/x-ndjson");
    MHD_add_response_header(response, "Connection", "close");
    enum MHD_Result result = MHD_queue_response(checkpoint->client, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

static struct fl_checkpoint *new_checkpoint(struct fl_checkpoints *checkpoints,
                                            const struct fl_checkpoint_order *order,
                                            struct MHD_Connection *client)
{
    struct fl_checkpoint *checkpoint = calloc(1, sizeof(*checkpoint));
    if (!checkpoint)
        return NULL;
    checkpoint->in = checkpoints;
    checkpoint->of = order->of;
    snprintf(checkpoint->name, sizeof(checkpoint->name), "%s", order->name);
    checkpoint->since_ns = fl_now();
    checkpoint->client = client;
    checkpoint->hangup.fd = -1;
    checkpoint->command = (struct fl_source){.fd = -1, .ready = on_said};
    checkpoint->whole = true;
    cds_list_add_tail(&checkpoint->link, &checkpoints->all);
    checkpoints->count++;
    return checkpoint;
}

static void log_order(const struct fl_checkpoint_order *order)
{
    if (order->of.process)
        fl_log(FL_LOG_INFO, "event=checkpoint_ordered pid=%" PRIu64 " as=%s", order->of.number,
               order->name);
    else
        fl_log(FL_LOG_INFO, "event=checkpoint_ordered vm=%" PRIu64 " as=%s", order->of.number,
               order->name);
}

unsigned fl_checkpoints_begin(struct fl_checkpoints *checkpoints,
                              const struct fl_checkpoint_order *order,
                              struct MHD_Connection *client, enum MHD_Result *ret_result,
                              struct fl_error *ret_error)
{
    char text[FL_CHECKPOINT_OF_TEXT];
    unsigned refused = refusal(checkpoints, order, ret_error);
    if (refused)
        return refused;
    struct fl_checkpoint *checkpoint = new_checkpoint(checkpoints, order, client);
    int error = checkpoint ? watch_client(checkpoint) : -ENOMEM;
    if (!error) {
        checkpoint->command.fd = start_command(checkpoints->acceptor, order->arguments);
        error = checkpoint->command.fd < 0 ? checkpoint->command.fd : 0;
    }
    if (error) {
        if (checkpoint)
            on_end(checkpoint);
        fl_fail(ret_error, error, "a checkpoint of %s cannot be begun",
                fl_checkpoint_of_text(&order->of, text));
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    log_order(order);
    *ret_result = answer(checkpoint);
    return 0;
}

// --- what the client says ---

struct fl_checkpoint *fl_checkpoints_find(struct fl_checkpoints *checkpoints,
                                          const struct fl_checkpoint_of *of)
{
    struct fl_checkpoint *checkpoint;
    cds_list_for_each_entry(checkpoint, &checkpoints->all, link)
    {
        if (checkpoint->of.process == of->process && checkpoint->of.number == of->number)
            return checkpoint;
    }
    return NULL;
}

static bool tell(const struct fl_checkpoint *checkpoint, const char *line)
{
    return checkpoint->command.fd >= 0 &&
           send(checkpoint->command.fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) ==
               (ssize_t)strlen(line);
}

bool fl_checkpoint_paused(struct fl_checkpoint *checkpoint)
{
    if (strcmp(checkpoint->state, "pause") != 0 || !tell(checkpoint, "paused\n"))
        return false;
    set_state(checkpoint, "paused");
    return true;
}

void fl_checkpoint_cancel(struct fl_checkpoint *checkpoint)
{
    tell(checkpoint, "abort\n"); // if that is not possible, it has ended
}

// --- what there is ---

json_t *fl_checkpoint_json(const struct fl_checkpoint *checkpoint)
{
    return json_pack("{s:I, s:s, s:s, s:I}", checkpoint->of.process ? "pid" : "vm",
                     (json_int_t)checkpoint->of.number, "name", checkpoint->name, "state",
                     checkpoint->state[0] ? checkpoint->state : "starting", "ms",
                     (json_int_t)((fl_now() - checkpoint->since_ns) / FL_NS_PER_MS));
}

json_t *fl_checkpoints_json(const struct fl_checkpoints *checkpoints)
{
    const struct fl_checkpoint *checkpoint;
    json_t *list = json_array();
    cds_list_for_each_entry(checkpoint, &checkpoints->all, link)
        json_array_append_new(list, fl_checkpoint_json(checkpoint));
    return json_pack("{s:o}", "checkpoints", list);
}
