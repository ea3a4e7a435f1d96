// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints that clients of the control API have ordered. Each is a command, a process beside the
// engine, and one client's answer, which lasts as long: each line that the command prints is sent
// to the client as it comes. If the client goes, the command is left alone, and undoes what it has
// done; so it is if the engine goes. Control thread only.
#ifndef FAULTLINE_CONTROL_CHECKPOINTS_H
#define FAULTLINE_CONTROL_CHECKPOINTS_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/control/checkpoint_order.h"

enum { FL_CHECKPOINTS_MOST = 32 }; // at once

struct fl_acceptor;
struct fl_checkpoint;
struct fl_checkpoints;

// NULL without memory.
struct fl_checkpoints *fl_checkpoints_new(struct fl_acceptor *acceptor);
// When there are none. NULL is allowed.
void fl_checkpoints_free(struct fl_checkpoints *checkpoints);
// True, once, if libmicrohttpd is to be run, as there is something for one of their clients. It
// does not say so itself, as it has no thread here.
bool fl_checkpoints_went_on(struct fl_checkpoints *checkpoints);
// Their clients are about to be cut off: none of them waits any more.
void fl_checkpoints_release(struct fl_checkpoints *checkpoints);

// Has the command started, and answers with what it says. *ret_error is why not, with the status
// in the return value; 0: the answer is *ret_result.
unsigned fl_checkpoints_begin(struct fl_checkpoints *checkpoints,
                              const struct fl_checkpoint_order *order,
                              struct MHD_Connection *client, enum MHD_Result *ret_result,
                              struct fl_error *ret_error);

// That of a VM; NULL: there is none.
struct fl_checkpoint *fl_checkpoints_find(struct fl_checkpoints *checkpoints,
                                          const struct fl_checkpoint_of *of);
// The VM is paused. False if its pause was not asked for, or it was said already.
bool fl_checkpoint_paused(struct fl_checkpoint *checkpoint);
// Its command is told so, and undoes it. If the image is published by then it stays: the client is
// told by the last event which of the two has come about.
void fl_checkpoint_cancel(struct fl_checkpoint *checkpoint);

// As docs/control-api.md says; NULL without memory.
json_t *fl_checkpoint_json(const struct fl_checkpoint *checkpoint);
json_t *fl_checkpoints_json(const struct fl_checkpoints *checkpoints);

#endif
