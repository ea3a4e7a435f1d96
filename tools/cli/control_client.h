// SPDX-License-Identifier: Apache-2.0
//
// Asks a running server over its control socket (docs/control-api.md). Any thread; a call waits for
// the answer. `control` is the path of the socket, `path` that of the HTTP request, `body` the JSON
// to send or NULL.
#ifndef FAULTLINE_TOOLS_CLI_CONTROL_CLIENT_H
#define FAULTLINE_TOOLS_CLI_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

// Sends a GET, or a POST if there is a body, and waits at most 30 s. The caller owns *ret_answer.
// Returns EXIT_DONE, or EXIT_FAILED after a sentence on stderr that names the socket or has the
// server's own reason. A GET is repeated if the engine that was asked dies before it answers; a
// POST is not.
int control_ask(const char *verb, const char *control, const char *path, const json_t *body,
                json_t **ret_answer);
// Does the same for an order that may be given twice: it is repeated, although it has a body.
int control_order(const char *verb, const char *control, const char *path, const json_t *body,
                  json_t **ret_answer);
// Does the same as control_ask() with another method.
int control_ask_by(const char *verb, const char *control, const char *method, const char *path,
                   const json_t *body, json_t **ret_answer);

// Does the same, but prints nothing, for a caller that goes on when no server answers for a while.
// *ret_status is the HTTP status, or 0 if there was no answer. The caller owns *ret_answer, which
// is NULL if the answer is no JSON.
void control_try(const char *control, const char *method, const char *path, const json_t *body,
                 long *ret_status, json_t **ret_answer);
// Does the same with a GET, waits a few seconds at most, and ends as soon as gives_up() says so.
void control_look(const char *control, const char *path, bool (*gives_up)(void), long *ret_status,
                  json_t **ret_answer);
// Makes all strings of an answer safe for a terminal (cli_plain). Call it before the answer is
// printed as text; printed as JSON, they are quoted anyway.
void control_plain(json_t *answer);

#endif
