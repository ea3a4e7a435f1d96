// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with a server, in one sentence each: `faultline status` and `faultline top` begin
// with it. Any thread.
#ifndef FAULTLINE_TOOLS_CLI_VERDICT_H
#define FAULTLINE_TOOLS_CLI_VERDICT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

enum { VERDICT_BYTES = 1024 };
#define VERDICT_WELL "all is well"

// Writes what is wrong by an answer of GET /v1/status: number 0 is the worst. False, and
// VERDICT_WELL, if no so many things are wrong.
bool verdict_say(const json_t *status, size_t number, char ret_text[VERDICT_BYTES]);
// Writes that there is no answer. `error` is the server's own reason, or NULL if nothing answers.
void verdict_no_answer(const char *control, const char *error, char ret_text[VERDICT_BYTES]);

#endif
