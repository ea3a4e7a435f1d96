// SPDX-License-Identifier: Apache-2.0
//
// HTTP over a unix socket at a path of any length: one request and its answer, or several over one
// connection, none of which waits for the answer to the one before. The connection ends with the
// last answer. Any thread; a call waits for the answers, or for the time that they may take.
#ifndef FAULTLINE_TOOLS_CLI_HTTP_CLIENT_H
#define FAULTLINE_TOOLS_CLI_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_ANSWER_MAX_BYTES = 1 << 30 }; // a status of a million VMs has less

struct http_question {
    const char *socket;
    const char *method;
    const char *path; // as it stands in the request: no space, no control character
    const char *body; // JSON; NULL: none
    // Asked ten times a second while it waits: true, and the answer is HTTP_LATE. NULL: never.
    bool (*gives_up)(void);
};

enum http_outcome {
    HTTP_ANSWERED,
    HTTP_UNREACHABLE, // there is no connection: `error` says why
    HTTP_GONE,        // it ended before the first byte of an answer
    HTTP_CUT,         // it ended within the answer
    HTTP_NO_HTTP,     // what came is no HTTP
    HTTP_LATE,        // the time is over, or the caller gave up
    HTTP_FAILED,      // it is the fault of this process, such as a lack of memory: `error`
};

struct http_answer {
    enum http_outcome outcome;
    int error;  // -errno
    int status; // of HTTP
    char *text; // the body with a NUL behind it, or NULL; free() it
    size_t used;
};

// Asks, and waits at most timeout_ms for all of it.
void http_ask(const struct http_question *question, unsigned timeout_ms,
              struct http_answer *ret_answer);

// The same in steps, for a caller that does something else meanwhile, and for several requests that
// the server is to have at once and to answer in their order: `socket` and `gives_up` are those of
// the first. Connects, and sends what the socket takes at once. NULL: there is no more to come, and
// ret_answers[0] says why; else all are set by http_end(), and stay where they are until then. The
// time runs from here on.
struct http_exchange;
struct http_exchange *http_begin(const struct http_question *questions, size_t count,
                                 unsigned timeout_ms, struct http_answer *ret_answers);
// Readable when something has come, or nothing will.
int http_descriptor(const struct http_exchange *exchange);
// Takes what has come, without waiting. True: that was all, and http_end() will not wait.
bool http_is_over(struct http_exchange *exchange);
// Waits for the rest, and frees the exchange. Those answers that did not come have the outcome that
// says why.
void http_end(struct http_exchange *exchange);
// Nobody wants the answers, which are freed, too. NULL is a no-op.
void http_drop(struct http_exchange *exchange);

#endif
