// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/control_client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/unix_socket.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/http_client.h"

enum { TIMEOUT_S = 30, LOOK_S = 5, ATTEMPTS = 20, PAUSE_MS = 50 };

struct question {
    const char *control;
    const char *method; // NULL: GET, or POST with a body
    const char *path;
    const char *body;       // NULL: none
    bool twice;             // it may be repeated although it has a body
    bool (*gives_up)(void); // NULL: it is waited for to the end
};

static int judge_answer(const char *verb, const char *control, int status, json_t *answer)
{
    const char *reason = json_string_value(json_object_get(answer, "error"));
    if (status >= 200 && status < 300 && answer)
        return EXIT_DONE;
    if (reason)
        return cli_fail(verb, "the server at %s says: %s", control, reason);
    return cli_fail(verb, "the server at %s gives an answer that is not understood (status %d)",
                    control, status);
}

// True if the engine that had accepted the connection has ended, in an upgrade or by dying. Its
// successor listens already.
static bool has_made_way(const struct http_answer *reply)
{
    return reply->outcome == HTTP_GONE || reply->outcome == HTTP_CUT;
}

// Repeats the question if the engine has made way, and only if a second one does no harm.
static void ask_server(const struct question *question, struct http_answer *reply)
{
    bool may_repeat = !question->body || question->twice;
    const char *usual = question->body ? "POST" : "GET";
    struct http_question http = {question->control, question->method ? question->method : usual,
                                 question->path, question->body, question->gives_up};
    unsigned timeout_ms = (question->gives_up ? LOOK_S : TIMEOUT_S) * 1000;
    http_ask(&http, timeout_ms, reply);
    for (unsigned i = 0; i < ATTEMPTS && may_repeat && has_made_way(reply); i++) {
        free(reply->text);
        poll(NULL, 0, PAUSE_MS);
        http_ask(&http, timeout_ms, reply);
    }
}

static const char where_it_is[] =
    "--control or $FAULTLINE_CONTROL says where the control socket is";

static int say_unreachable(const char *verb, const char *control, int error)
{
    const char *why = fl_socket_why(control, error);
    switch (error) {
    case -ECONNREFUSED:
        return cli_fail(verb, "no server answers at %s: %s; start 'faultline serve' again", control,
                        why);
    case -ENOENT:
    case -ENOTDIR:
    case -ENOTSOCK:
    case -EPROTOTYPE:
        return cli_fail(verb, "no server answers at %s: %s (%s)", control, why, where_it_is);
    case -EACCES:
    case -EPERM:
        return cli_fail(verb,
                        "the server at %s cannot be reached: %s; run this as the server's user",
                        control, why);
    default:
        return cli_fail(verb, "the server at %s cannot be reached: %s", control, why);
    }
}

static int say_no_answer(const char *verb, const char *control, const struct http_answer *reply)
{
    switch (reply->outcome) {
    case HTTP_UNREACHABLE:
        return say_unreachable(verb, control, reply->error);
    case HTTP_GONE:
        return cli_fail(verb,
                        "what listens at %s closes the connection without an answer: it may be an "
                        "image's socket (%s)",
                        control, where_it_is);
    case HTTP_CUT:
        return cli_fail(verb, "the server at %s has ended within its answer", control);
    case HTTP_NO_HTTP:
        return cli_fail(verb, "what listens at %s speaks no HTTP: it is no control socket (%s)",
                        control, where_it_is);
    case HTTP_LATE:
        return cli_fail(verb, "the server at %s has not answered within %d s", control, TIMEOUT_S);
    case HTTP_ANSWERED:
    case HTTP_FAILED:
    default:
        return cli_fail_errno(verb, reply->error, "the server at %s cannot be asked", control);
    }
}

static int ask_or_say(const char *verb, struct question question, const json_t *body,
                      json_t **ret_answer)
{
    const char *control = question.control;
    struct http_answer reply;
    char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
    question.body = sent;
    ask_server(&question, &reply);
    free(sent);
    if (reply.outcome != HTTP_ANSWERED) {
        free(reply.text);
        return say_no_answer(verb, control, &reply);
    }
    json_error_t where;
    json_t *answer = json_loads(reply.text ? reply.text : "", 0, &where);
    free(reply.text);
    int result = judge_answer(verb, control, reply.status, answer);
    if (result == EXIT_DONE)
        *ret_answer = answer;
    else
        json_decref(answer);
    return result;
}

static void try_server(const struct question *question, long *ret_status, json_t **ret_answer)
{
    struct http_answer reply;
    ask_server(question, &reply);
    *ret_status = reply.outcome == HTTP_ANSWERED ? reply.status : 0;
    *ret_answer = *ret_status ? json_loads(reply.text ? reply.text : "", 0, NULL) : NULL;
    free(reply.text);
}

void control_try(const char *control, const char *method, const char *path, const json_t *body,
                 long *ret_status, json_t **ret_answer)
{
    char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct question question = {.control = control, .method = method, .path = path, .body = sent};
    try_server(&question, ret_status, ret_answer);
    free(sent);
}

void control_look(const char *control, const char *path, bool (*gives_up)(void), long *ret_status,
                  json_t **ret_answer)
{
    struct question question = {.control = control, .path = path, .gives_up = gives_up};
    try_server(&question, ret_status, ret_answer);
}

int control_ask_by(const char *verb, const char *control, const char *method, const char *path,
                   const json_t *body, json_t **ret_answer)
{
    struct question question = {.control = control, .method = method, .path = path};
    return ask_or_say(verb, question, body, ret_answer);
}

int control_order(const char *verb, const char *control, const char *path, const json_t *body,
                  json_t **ret_answer)
{
    struct question question = {.control = control, .path = path, .twice = true};
    return ask_or_say(verb, question, body, ret_answer);
}

int control_ask(const char *verb, const char *control, const char *path, const json_t *body,
                json_t **ret_answer)
{
    return control_ask_by(verb, control, NULL, path, body, ret_answer);
}

static void plain_string(json_t *string)
{
    char *text = strdup(json_string_value(string));
    if (!text)
        return;
    // cli_plain() keeps bytes above 127, except control characters, so the string stays UTF-8.
    if (json_string_set(string, cli_plain(text)) < 0)
        json_string_set(string, "?");
    free(text);
}

void control_plain(json_t *answer)
{
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_string(answer))
        plain_string(answer);
    json_object_foreach(answer, key, value) control_plain(value);
    json_array_foreach(answer, i, value) control_plain(value);
}
