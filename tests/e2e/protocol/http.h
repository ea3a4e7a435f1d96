// SPDX-License-Identifier: Apache-2.0
//
// HTTP by hand, as a client may speak it that knows no better.
#ifndef FAULTLINE_TESTS_PROTOCOL_HTTP_H
#define FAULTLINE_TESTS_PROTOCOL_HTTP_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_ANSWER_MAX = 1 << 18 };

struct http_answer {
    int status; // 0: it was no answer
    const char *body;
    char text[HTTP_ANSWER_MAX];
};

// Connects to a socket, or to ADDRESS:PORT of IPv4 or IPv6, for which there is no slash in it. -1
// with errno.
int http_connect(const char *place);
// A connection that ends with the answer. The status; 0 also if nothing listens there.
int http_ask(const char *socket, struct http_answer *answer, const char *method, const char *path,
             const char *body);
// What is sent in one go, and all that comes until the server closes or the answer is full.
void http_exchange(const char *place, struct http_answer *answer, const char *request,
                   size_t length);
// The answer is an error with this sentence.
bool http_says(const struct http_answer *answer, const char *sentence);

#endif
