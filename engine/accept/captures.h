// SPDX-License-Identifier: Apache-2.0
//
// The captures of all VMs: those that processes take checkpoints by, and those that are kept for
// the next one. Control thread.
#ifndef FAULTLINE_ACCEPT_CAPTURES_H
#define FAULTLINE_ACCEPT_CAPTURES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/accept/capture_session_state.h"

struct fl_acceptor;
struct fl_captures;
struct fl_message;

// NULL without memory.
struct fl_captures *fl_captures_new(struct fl_acceptor *acceptor);
// When no worker runs any more. NULL is allowed, here and below: there are none.
void fl_captures_free(struct fl_captures *captures);

// A client of CONTROL.keeper asks for a capture. Takes its socket, which is in no loop; it is
// answered if the capture is refused.
void fl_captures_take(struct fl_captures *captures, const struct fl_message *message, int socket);
// Another engine goes on: clients are told that their captures have failed, and workers nothing.
// The successor takes away what is still protected.
void fl_captures_leave(struct fl_captures *captures);
// Ends the capture of a VM that runs, or is kept. If there is none, pages that were left protected
// are freed all the same. False if there is no such VM.
bool fl_captures_cancel(struct fl_captures *captures, uint64_t vm);
// The VM has no worker any more.
void fl_captures_vm_gone(struct fl_captures *captures, uint64_t vm);

// The capture of a VM, of several that which runs: NULL if there is none.
const struct fl_capture_session *fl_captures_find(const struct fl_captures *captures, uint64_t vm);
void fl_captures_each(const struct fl_captures *captures,
                      void (*fn)(void *arg, const struct fl_capture_session *session), void *arg);

struct fl_captures_now {
    unsigned running;
    unsigned kept;
};
struct fl_captures_now fl_captures_count(const struct fl_captures *captures);

#endif
