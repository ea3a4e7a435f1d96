// SPDX-License-Identifier: Apache-2.0
//
// The control API: HTTP and JSON, for curl, for the verbs and for Prometheus. Control thread only.
// routes.c has the table of what can be asked; docs/control-api.md says what each takes and
// answers, and docs/openapi.json says it to programs.
//
// It has three doors, the last two of which are optional:
//   control  a unix socket at which orders are taken, from peers that may give them
//   observe  a unix socket at which all can be read, and no order is taken
//   metrics  TCP or a unix socket: /metrics, /healthz and /readyz alone
#ifndef FAULTLINE_CONTROL_CONTROL_H
#define FAULTLINE_CONTROL_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/control/control_options.h"
#include "snapshot/error.h"

struct fl_acceptor;
struct fl_control;

// No door is open yet. NULL without memory.
struct fl_control *fl_control_new(struct fl_acceptor *acceptor,
                                  const struct fl_control_options *options,
                                  const struct fl_control_ops *ops);
// Opens the door, unless it is open; opens it anew if its path does not lead to it any more (then
// clients that are connected are cut off). A door that is not wanted is shut, if a predecessor left
// one. 0, or -errno with a sentence.
int fl_control_look(struct fl_control *control, enum fl_door_kind kind, struct fl_error *ret_error);
// A door is to be at an address of TCP, so that sockets of the internet must be allowed.
bool fl_control_is_on_internet(const struct fl_control *control);
void fl_control_free(struct fl_control *control); // NULL is allowed, here and below

// Does what is to be done without waiting.
void fl_control_run(struct fl_control *control, uint64_t now);
uint64_t fl_control_next_due(struct fl_control *control);

#endif
