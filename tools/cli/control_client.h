// SPDX-License-Identifier: Apache-2.0
//
// Asking a running server over its control socket.
#ifndef FAULTLINE_TOOLS_CLI_CONTROL_CLIENT_H
#define FAULTLINE_TOOLS_CLI_CONTROL_CLIENT_H

#include <jansson.h>

// GET, or POST of `body` unless it is NULL; or another method. The server has 30 s to answer. The
// caller owns *ret_answer. EXIT_DONE; else EXIT_FAILED after a sentence on stderr that names the
// socket or repeats what the server said.
int control_ask(const char *verb, const char *control, const char *path, const json_t *body,
                json_t **ret_answer);
// POST of what may be asked twice: it is, if who was asked dies before the answer.
int control_order(const char *verb, const char *control, const char *path, const json_t *body,
                  json_t **ret_answer);
int control_ask_by(const char *verb, const char *control, const char *method, const char *path,
                   const json_t *body, json_t **ret_answer);

// The same without a word on stderr, for who goes on when nobody answers for a while. *ret_status
// is the HTTP status, 0 if nobody has answered; the caller owns *ret_answer, NULL if it is no JSON.
void control_try(const char *control, const char *method, const char *path, const json_t *body,
                 long *ret_status, json_t **ret_answer);
// Makes all strings of an answer fit for a terminal (cli_plain): for who prints it as text. As JSON
// they are quoted already.
void control_plain(json_t *answer);

#endif
