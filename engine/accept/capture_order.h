// SPDX-License-Identifier: Apache-2.0
//
// The mail between a client's capture (capture_session.h) and the thread that owns its VM: one
// letter for each order, and one for each phase that is told.
#ifndef FAULTLINE_ACCEPT_CAPTURE_ORDER_H
#define FAULTLINE_ACCEPT_CAPTURE_ORDER_H

#include <stdbool.h>

#include "engine/accept/capture_session_state.h"

struct fl_vm;

// Control thread. One order at a time: session->order_is_back() is called when the next may be
// given. Nothing happens if the VM has gone, which is told if its capture had begun.
void fl_capture_order_post(struct fl_capture_session *session, enum fl_capture_order order);

// Control thread. Has the VM's owner take the protection from all pages of a VM that has no
// capture. False without memory.
bool fl_capture_order_unprotect(struct fl_engine *engine, const struct fl_vm *vm);

// What a capture tells with (ahead/capture.h), `arg` being the session: session->told() is called
// in the control thread.
void fl_capture_tell_control(void *arg, enum fl_capture_phase phase, int error, const char *reason);

#endif
