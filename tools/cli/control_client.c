// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/control_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

enum { TIMEOUT_S = 30, ATTEMPTS = 20, PAUSE_MS = 50 };

struct text {
    char *data;
    size_t used;
};

static size_t collect_reply(char *data, size_t size, size_t count, void *arg)
{
    struct text *text = arg;
    char *more = realloc(text->data, text->used + size * count + 1);
    if (!more)
        return 0;
    memcpy(more + text->used, data, size * count);
    text->data = more;
    text->used += size * count;
    more[text->used] = '\0';
    return size * count;
}

struct question {
    const char *control;
    const char *method; // NULL: GET, or POST with a body
    const char *path;
    const char *body; // NULL: none
    bool twice;       // it may be repeated although it has a body
};

struct reply {
    CURLcode code;
    long os_error;
    long status;
    struct text text;
};

static CURLcode perform_request(const struct question *question, struct reply *reply)
{
    char url[256];
    snprintf(url, sizeof(url), "http://localhost%s", question->path);
    CURL *curl = curl_easy_init();
    if (!curl)
        return CURLE_OUT_OF_MEMORY;
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, question->control);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect_reply);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply->text);
    if (question->body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, question->body);
    if (question->method)
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, question->method);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->status);
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &reply->os_error);
    curl_easy_cleanup(curl);
    return code;
}

static int judge_answer(const char *verb, const char *control, long status, json_t *answer)
{
    const char *reason = json_string_value(json_object_get(answer, "error"));
    if (status >= 200 && status < 300 && answer)
        return EXIT_DONE;
    if (reason)
        return cli_fail(verb, "the server at %s says: %s", control, reason);
    return cli_fail(verb, "the server at %s gives an answer that is not understood (status %ld)",
                    control, status);
}

// True if the engine that had accepted the connection has ended, in an upgrade or by dying. Its
// successor listens already.
static bool has_made_way(CURLcode code)
{
    return code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING;
}

// Repeats the question if the engine has made way, and only if a second one does no harm.
static void ask_server(const struct question *question, struct reply *reply)
{
    bool may_repeat = !question->body || question->twice;
    reply->code = perform_request(question, reply);
    for (unsigned i = 0; i < ATTEMPTS && may_repeat && has_made_way(reply->code); i++) {
        free(reply->text.data);
        reply->text = (struct text){0};
        poll(NULL, 0, PAUSE_MS);
        reply->code = perform_request(question, reply);
    }
}

static int say_unreachable(const char *verb, const char *control, const struct reply *reply)
{
    if (reply->code == CURLE_OPERATION_TIMEDOUT)
        return cli_fail(verb, "the server at %s has not answered within %d s", control, TIMEOUT_S);
    if (reply->code != CURLE_COULDNT_CONNECT || reply->os_error == 0)
        return cli_fail(verb, "no server answers at %s: %s", control,
                        curl_easy_strerror(reply->code));
    switch (reply->os_error) {
    case ENOENT:
        return cli_fail(verb,
                        "no server answers at %s: there is no such socket (--control or "
                        "$FAULTLINE_CONTROL says where it is)",
                        control);
    case ECONNREFUSED:
        return cli_fail(verb,
                        "no server answers at %s: no process listens there any more; start "
                        "'faultline serve' again",
                        control);
    case EACCES:
    case EPERM:
        return cli_fail(
            verb,
            "the server at %s cannot be reached: permission denied; run this as the server's user",
            control);
    default:
        return cli_fail_errno(verb, (int)reply->os_error, "no server answers at %s", control);
    }
}

static int ask_or_say(const char *verb, struct question question, const json_t *body,
                      json_t **ret_answer)
{
    const char *control = question.control;
    struct reply reply = {0};
    if (strlen(control) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return cli_fail(verb, "the path %s is too long for a control socket", control);
    char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
    question.body = sent;
    ask_server(&question, &reply);
    free(sent);
    if (reply.code != CURLE_OK) {
        free(reply.text.data);
        return say_unreachable(verb, control, &reply);
    }
    json_error_t where;
    json_t *answer = json_loads(reply.text.data ? reply.text.data : "", 0, &where);
    free(reply.text.data);
    int result = judge_answer(verb, control, reply.status, answer);
    if (result == EXIT_DONE)
        *ret_answer = answer;
    else
        json_decref(answer);
    return result;
}

void control_try(const char *control, const char *method, const char *path, const json_t *body,
                 long *ret_status, json_t **ret_answer)
{
    struct reply reply = {0};
    char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct question question = {control, method, path, sent, false};
    ask_server(&question, &reply);
    free(sent);
    *ret_status = reply.code == CURLE_OK ? reply.status : 0;
    *ret_answer = *ret_status ? json_loads(reply.text.data ? reply.text.data : "", 0, NULL) : NULL;
    free(reply.text.data);
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
