// SPDX-License-Identifier: Apache-2.0
//
// One HTTP request over a unix socket at a path of any length, and its answer. The connection ends
// with the answer. Any thread; a call waits for the answer, or for the time that it may take.
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

// The same in steps, for a caller that does something else meanwhile. Connects, and sends what the
// socket takes at once. NULL: there is no more to come, and *ret_answer says why; else it is set by
// http_end(), and stays where it is until then. The time runs from here on.
struct http_exchange;
struct http_exchange *http_begin(const struct http_question *question, unsigned timeout_ms,
                                 struct http_answer *ret_answer);
// Readable when something of the answer has come, or none will.
int http_descriptor(const struct http_exchange *exchange);
// Waits for the rest of the answer, and frees the exchange.
void http_end(struct http_exchange *exchange);
// Nobody wants the answer, which is freed, too. NULL is a no-op.
void http_drop(struct http_exchange *exchange);

#endif
