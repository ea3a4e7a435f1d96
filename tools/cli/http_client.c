// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The socket does not block: one poll() waits for room to send and for the
// answer, so that a server that answers before it has read all, such as 413, is heard, and so that
// one deadline holds for everything. The parser is given what comes as it comes, and says where an
// answer ends.
#include "tools/cli/http_client.h"

#include <errno.h>
#include <http_parser.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/unix_socket.h"

enum { CONNECT_PAUSE_MS = 10, LOOK_MS = 100, READ_BYTES = 16384, FINAL_STATUS = 200 };

struct http_exchange {
    int fd;
    uint64_t deadline;
    bool (*gives_up)(void);
    char *request;
    size_t length;
    size_t sent;
    bool cannot_send; // the peer reads no more, but may have answered
    bool heard;       // a byte of the answer that is due has come
    bool over;        // nothing more will come: `outcome` is that of the answers that did not
    enum http_outcome outcome;
    http_parser parser;
    struct http_answer *answers;
    size_t count;
    size_t answered;
};

// The one that is due.
static struct http_answer *due(struct http_exchange *exchange)
{
    return &exchange->answers[exchange->answered];
}

static bool is_complete(const struct http_exchange *exchange)
{
    return exchange->answered == exchange->count;
}

static int note_begin(http_parser *parser)
{
    ((struct http_exchange *)parser->data)->heard = true;
    return 0;
}

static int collect_body(http_parser *parser, const char *data, size_t size)
{
    struct http_answer *answer = due(parser->data);
    if (size > HTTP_ANSWER_MAX_BYTES - answer->used)
        answer->error = -EFBIG;
    char *more = answer->error ? NULL : realloc(answer->text, answer->used + size + 1);
    if (!more) {
        answer->error = answer->error ? answer->error : -ENOMEM;
        return 1; // ends the parsing
    }
    memcpy(more + answer->used, data, size);
    answer->text = more;
    answer->used += size;
    more[answer->used] = '\0';
    return 0;
}

// An answer of 1xx announces another one.
static int note_end(http_parser *parser)
{
    struct http_exchange *exchange = parser->data;
    if (parser->status_code < FINAL_STATUS)
        return 0;
    due(exchange)->status = (int)parser->status_code;
    due(exchange)->outcome = HTTP_ANSWERED;
    exchange->answered++;
    exchange->heard = false;
    if (is_complete(exchange))
        http_parser_pause(parser, 1);
    return 0;
}

static bool has_parsed(struct http_exchange *exchange, const char *data, size_t size)
{
    static const http_parser_settings settings = {
        .on_message_begin = note_begin, .on_body = collect_body, .on_message_complete = note_end};
    http_parser_execute(&exchange->parser, &settings, data, size);
    enum http_errno error = HTTP_PARSER_ERRNO(&exchange->parser);
    return error == HPE_OK || error == HPE_PAUSED;
}

// Appends one. The last one says that no other comes after it.
static int format_request(const struct http_question *question, bool last,
                          struct http_exchange *exchange)
{
    char *text;
    size_t body = question->body ? strlen(question->body) : 0;
    int length =
        asprintf(&text,
                 "%s%s %s HTTP/1.1\r\nHost: localhost\r\n%s"
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                 exchange->request ? exchange->request : "", question->method, question->path,
                 last ? "Connection: close\r\n" : "", body, question->body ? question->body : "");
    if (length < 0)
        return -ENOMEM;
    free(exchange->request);
    exchange->request = text;
    exchange->length = (size_t)length;
    return 0;
}

// The milliseconds that may be waited, rounded up; 0 if none may.
static int time_left(const struct http_exchange *exchange)
{
    if (exchange->gives_up && exchange->gives_up())
        return 0;
    uint64_t now = fl_now();
    uint64_t left = exchange->deadline > now ? exchange->deadline - now : 0;
    left = (left + FL_NS_PER_MS - 1) / FL_NS_PER_MS;
    if (exchange->gives_up && left > LOOK_MS)
        return LOOK_MS;
    return left > INT_MAX ? INT_MAX : (int)left;
}

// A server that has much to accept gets time for it.
static enum http_outcome connect_to(struct http_exchange *exchange, const char *socket)
{
    for (;;) {
        exchange->fd = fl_socket_connect(socket, SOCK_STREAM);
        if (exchange->fd >= 0)
            return HTTP_ANSWERED;
        due(exchange)->error = exchange->fd;
        if (exchange->fd != -EAGAIN && exchange->fd != -EINTR)
            return HTTP_UNREACHABLE;
        if (time_left(exchange) == 0)
            return HTTP_LATE;
        poll(NULL, 0, CONNECT_PAUSE_MS);
    }
}

static void send_more(struct http_exchange *exchange)
{
    ssize_t sent = send(exchange->fd, exchange->request + exchange->sent,
                        exchange->length - exchange->sent, MSG_NOSIGNAL);
    if (sent >= 0)
        exchange->sent += (size_t)sent;
    else if (errno != EAGAIN && errno != EINTR)
        exchange->cannot_send = true;
}

static void note_over(struct http_exchange *exchange, enum http_outcome outcome)
{
    exchange->over = true;
    exchange->outcome = outcome;
}

static enum http_outcome hear_end(struct http_exchange *exchange)
{
    if (!exchange->heard)
        return HTTP_GONE;
    return has_parsed(exchange, NULL, 0) && is_complete(exchange) ? HTTP_ANSWERED : HTTP_CUT;
}

// Reads what has come. False: nothing.
static bool hear_more(struct http_exchange *exchange)
{
    char data[READ_BYTES];
    ssize_t got = recv(exchange->fd, data, sizeof(data), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) {
        note_over(exchange, hear_end(exchange));
        return true;
    }
    bool parsed = has_parsed(exchange, data, (size_t)got);
    if (is_complete(exchange))
        note_over(exchange, HTTP_ANSWERED);
    else if (!parsed)
        note_over(exchange, due(exchange)->error ? HTTP_FAILED : HTTP_NO_HTTP);
    return true;
}

static void talk(struct http_exchange *exchange)
{
    while (!exchange->over) {
        bool sending = exchange->sent < exchange->length && !exchange->cannot_send;
        struct pollfd poll_fd = {.fd = exchange->fd,
                                 .events = (short)(POLLIN | (sending ? POLLOUT : 0))};
        int left = time_left(exchange);
        if (left == 0) {
            note_over(exchange, HTTP_LATE);
        } else if (poll(&poll_fd, 1, left) < 0 && errno != EINTR) {
            due(exchange)->error = -errno;
            note_over(exchange, HTTP_FAILED);
        } else {
            if (poll_fd.revents & POLLOUT && sending)
                send_more(exchange);
            if (poll_fd.revents & (POLLIN | POLLHUP | POLLERR))
                hear_more(exchange);
        }
    }
}

static void exchange_free(struct http_exchange *exchange)
{
    if (exchange->fd >= 0)
        close(exchange->fd);
    free(exchange->request);
    free(exchange);
}

static enum http_outcome start(struct http_exchange *exchange,
                               const struct http_question *questions)
{
    for (size_t i = 0; i < exchange->count; i++) {
        due(exchange)->error = format_request(&questions[i], i + 1 == exchange->count, exchange);
        if (due(exchange)->error)
            return HTTP_FAILED;
    }
    enum http_outcome outcome = connect_to(exchange, questions->socket);
    if (outcome != HTTP_ANSWERED)
        return outcome;
    due(exchange)->error = 0;
    send_more(exchange);
    return HTTP_ANSWERED;
}

struct http_exchange *http_begin(const struct http_question *questions, size_t count,
                                 unsigned timeout_ms, struct http_answer *ret_answers)
{
    struct http_exchange *exchange = calloc(1, sizeof(*exchange));
    for (size_t i = 0; i < count; i++)
        ret_answers[i] = (struct http_answer){0};
    if (!exchange) {
        ret_answers->outcome = HTTP_FAILED;
        ret_answers->error = -ENOMEM;
        return NULL;
    }
    exchange->fd = -1;
    exchange->deadline = fl_now() + timeout_ms * FL_NS_PER_MS;
    exchange->gives_up = questions->gives_up;
    exchange->answers = ret_answers;
    exchange->count = count;
    http_parser_init(&exchange->parser, HTTP_RESPONSE);
    exchange->parser.data = exchange;
    ret_answers->outcome = start(exchange, questions);
    if (ret_answers->outcome == HTTP_ANSWERED)
        return exchange;
    exchange_free(exchange);
    return NULL;
}

int http_descriptor(const struct http_exchange *exchange)
{
    return exchange->fd;
}

bool http_is_over(struct http_exchange *exchange)
{
    while (!exchange->over && hear_more(exchange)) {
    }
    return exchange->over;
}

void http_end(struct http_exchange *exchange)
{
    talk(exchange);
    for (size_t i = exchange->answered; i < exchange->count; i++)
        exchange->answers[i].outcome = exchange->outcome;
    exchange_free(exchange);
}

void http_drop(struct http_exchange *exchange)
{
    if (!exchange)
        return;
    for (size_t i = 0; i < exchange->count; i++) {
        free(exchange->answers[i].text);
        exchange->answers[i].text = NULL;
    }
    exchange_free(exchange);
}

void http_ask(const struct http_question *question, unsigned timeout_ms,
              struct http_answer *ret_answer)
{
    struct http_exchange *exchange = http_begin(question, 1, timeout_ms, ret_answer);
    if (exchange)
        http_end(exchange);
}
