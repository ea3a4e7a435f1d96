// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/firecracker_api.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/unix_socket.h"

enum { STATUS_OK = 200, STATUS_NO_CONTENT = 204, STATUS_REFUSED = 400 };

static int say_no_answer(const char *api, const char *what, unsigned timeout_ms,
                         const struct http_answer *answer, struct fl_error *ret_error)
{
    switch (answer->outcome) {
    case HTTP_UNREACHABLE:
        return fl_fail_plain(ret_error, answer->error, "no Firecracker listens at %s: %s", api,
                             fl_socket_why(api, answer->error));
    case HTTP_GONE:
    case HTTP_CUT:
        return fl_fail_plain(ret_error, -ECONNRESET,
                             "the Firecracker at %s has ended while it was told to %s", api, what);
    case HTTP_NO_HTTP:
        return fl_fail_plain(ret_error, -EPROTO, "what listens at %s is no Firecracker's API", api);
    case HTTP_LATE:
        return fl_fail_plain(ret_error, -ETIMEDOUT,
                             "the Firecracker at %s was told to %s and has not answered within "
                             "%u ms",
                             api, what, timeout_ms);
    case HTTP_ANSWERED:
    case HTTP_FAILED:
    default:
        return fl_fail(ret_error, answer->error, "the Firecracker at %s cannot be asked", api);
    }
}

// Returns the HTTP status, or -errno and a sentence without an answer. The caller owns *ret_body,
// which is NULL if it is no JSON. what: such as "pause the VM".
static int take_answer(struct http_answer *answer, const char *api, const char *what,
                       unsigned timeout_ms, json_t **ret_body, struct fl_error *ret_error)
{
    bool answered = answer->outcome == HTTP_ANSWERED;
    *ret_body = answered && answer->text ? json_loadb(answer->text, answer->used, 0, NULL) : NULL;
    free(answer->text);
    answer->text = NULL;
    return answered ? answer->status : say_no_answer(api, what, timeout_ms, answer, ret_error);
}

static int ask(const struct http_question *question, const char *what, unsigned timeout_ms,
               json_t **ret_body, struct fl_error *ret_error)
{
    struct http_answer answer;
    http_ask(question, timeout_ms, &answer);
    return take_answer(&answer, question->socket, what, timeout_ms, ret_body, ret_error);
}

// Firecracker's own reason.
static const char *fault_of(const json_t *body)
{
    const char *fault = json_string_value(json_object_get(body, "fault_message"));
    return fault ? fault : "it gives no reason";
}

static int say_refusal(const char *api, const char *what, int status, const json_t *body,
                       struct fl_error *ret_error)
{
    return fl_fail_plain(ret_error, -EREMOTEIO, "the Firecracker at %s does not %s (%d): %s", api,
                         what, status, fault_of(body));
}

int firecracker_peer(const char *api, pid_t *ret_pid, uid_t *ret_uid, gid_t *ret_gid,
                     struct fl_error *ret_error)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    int fd = fl_socket_connect(api, SOCK_STREAM);
    if (fd < 0)
        return fl_fail_plain(ret_error, fd, "no Firecracker listens at %s: %s", api,
                             fl_socket_why(api, fd));
    int error = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ? -errno : 0;
    close(fd);
    if (error)
        return fl_fail(ret_error, error, "the process that listens at %s is not known", api);
    *ret_pid = peer.pid;
    *ret_uid = peer.uid;
    *ret_gid = peer.gid;
    return 0;
}

static bool read_state(const char *text, enum firecracker_state *ret_state)
{
    static const char *const name[] = {[FIRECRACKER_NOT_STARTED] = "Not started",
                                       [FIRECRACKER_RUNNING] = "Running",
                                       [FIRECRACKER_PAUSED] = "Paused"};
    for (unsigned i = 0; text && i < sizeof(name) / sizeof(name[0]); i++) {
        if (strcmp(text, name[i]) == 0) {
            *ret_state = (enum firecracker_state)i;
            return true;
        }
    }
    return false;
}

int firecracker_describe(const char *api, unsigned timeout_ms, struct firecracker_info *ret_info,
                         struct fl_error *ret_error)
{
    json_t *body;
    struct http_question question = {.socket = api, .method = "GET", .path = "/"};
    int status = ask(&question, "describe itself", timeout_ms, &body, ret_error);
    const char *version = json_string_value(json_object_get(body, "vmm_version"));
    const char *state = json_string_value(json_object_get(body, "state"));
    if (status >= 0 && (status != STATUS_OK || !read_state(state, &ret_info->state)))
        status =
            fl_fail_plain(ret_error, -EPROTO, "what listens at %s is no Firecracker's API", api);
    if (status >= 0)
        snprintf(ret_info->version, sizeof(ret_info->version), "%s", version ? version : "?");
    json_decref(body);
    return status < 0 ? status : 0;
}

// --- orders ---

static const char to_pause[] = "pause the VM";
static const char to_resume[] = "resume the VM";
static const char to_create[] = "write the state of the VM";

static int begin(const struct http_question *questions, unsigned count, const char *what,
                 unsigned timeout_ms, struct firecracker_request *ret_request,
                 struct fl_error *ret_error)
{
    *ret_request = (struct firecracker_request){
        .api = questions->socket, .timeout_ms = timeout_ms, .orders = count};
    ret_request->exchange = http_begin(questions, count, timeout_ms, ret_request->answer);
    if (ret_request->exchange)
        return 0;
    return say_no_answer(ret_request->api, what, timeout_ms, ret_request->answer, ret_error);
}

static int take(struct firecracker_request *request, unsigned order, const char *what,
                json_t **ret_body, struct fl_error *ret_error)
{
    return take_answer(&request->answer[order], request->api, what, request->timeout_ms, ret_body,
                       ret_error);
}

// Of an order to pause or to resume. 0, or -errno and a sentence.
static int take_done(struct firecracker_request *request, const char *what,
                     struct fl_error *ret_error)
{
    json_t *answer;
    int status = take(request, 0, what, &answer, ret_error);
    if (status >= 0 && status != STATUS_NO_CONTENT)
        status = say_refusal(request->api, what, status, answer, ret_error);
    json_decref(answer);
    return status < 0 ? status : 0;
}

bool firecracker_is_answered(const struct firecracker_request *request)
{
    return request->exchange && http_is_over(request->exchange);
}

void firecracker_drop(struct firecracker_request *request)
{
    http_drop(request->exchange);
    request->exchange = NULL;
}

static void wait_for_all(struct firecracker_request *request)
{
    http_end(request->exchange);
    request->exchange = NULL;
}

// --- resuming ---

int firecracker_resume_begin(const char *api, unsigned timeout_ms,
                             struct firecracker_request *ret_request, struct fl_error *ret_error)
{
    struct http_question question = {
        .socket = api, .method = "PATCH", .path = "/vm", .body = "{\"state\":\"Resumed\"}"};
    return begin(&question, 1, to_resume, timeout_ms, ret_request, ret_error);
}

int firecracker_resume_end(struct firecracker_request *request, struct fl_error *ret_error)
{
    wait_for_all(request);
    return take_done(request, to_resume, ret_error);
}

int firecracker_resume(const char *api, unsigned timeout_ms, struct fl_error *ret_error)
{
    struct firecracker_request request;
    int error = firecracker_resume_begin(api, timeout_ms, &request, ret_error);
    return error ? error : firecracker_resume_end(&request, ret_error);
}

// --- the state ---

// A FIFO cannot be truncated: EINVAL. Firecracker says so with the number, in any language.
static bool is_cut_short(int status, const json_t *body)
{
    const char *fault = fault_of(body);
    return status == STATUS_REFUSED && strstr(fault, "memory backing file") &&
           strstr(fault, "os error 22");
}

// The order to pause needs no answer before the next one is sent: both are on their way while
// Firecracker pauses, and it refuses to write the state of a VM that runs.
int firecracker_create_begin(const char *api, const struct firecracker_creation *creation,
                             unsigned timeout_ms, struct firecracker_request *ret_request,
                             struct fl_error *ret_error)
{
    // Full, also where Diff would do: older versions refuse Diff without tracking of dirty pages.
    json_t *order = json_pack("{s:s, s:s, s:s}", "snapshot_type", "Full", "snapshot_path",
                              creation->vmstate, "mem_file_path", creation->memory);
    char *body = order ? json_dumps(order, JSON_COMPACT) : NULL;
    json_decref(order);
    if (!body)
        return fl_fail_plain(ret_error, -EINVAL,
                             "the path %s is not UTF-8, which Firecracker needs",
                             creation->vmstate);
    const struct http_question questions[] = {
        {.socket = api, .method = "PATCH", .path = "/vm", .body = "{\"state\":\"Paused\"}"},
        {.socket = api, .method = "PUT", .path = "/snapshot/create", .body = body},
    };
    int error = begin(creation->pauses ? &questions[0] : &questions[1], creation->pauses ? 2 : 1,
                      creation->pauses ? to_pause : to_create, timeout_ms, ret_request, ret_error);
    free(body);
    return error;
}

static enum firecracker_create take_created(struct firecracker_request *request,
                                            struct fl_error *ret_error)
{
    json_t *answer;
    enum firecracker_create outcome = FIRECRACKER_REFUSED;
    int status = take(request, request->orders - 1, to_create, &answer, ret_error);
    if (status < 0)
        outcome = FIRECRACKER_SILENT;
    else if (is_cut_short(status, answer))
        outcome = FIRECRACKER_CUT_SHORT;
    else
        say_refusal(request->api, to_create, status, answer, ret_error);
    json_decref(answer);
    return outcome;
}

enum firecracker_create firecracker_create_end(struct firecracker_request *request,
                                               struct fl_error *ret_error)
{
    wait_for_all(request);
    int paused = request->orders > 1 ? take_done(request, to_pause, ret_error) : 0;
    enum firecracker_create outcome = take_created(request, paused ? NULL : ret_error);
    return paused == -EREMOTEIO ? FIRECRACKER_REFUSED : paused ? FIRECRACKER_SILENT : outcome;
}
