// SPDX-License-Identifier: Apache-2.0
//
// One capture of a VM as the process that takes a checkpoint sees it (engine/link/channel.h): its
// connection, the orders that it gives, and what it is told. The capture itself belongs to the VM's
// worker (engine/ahead/capture.h). Control thread.
#ifndef FAULTLINE_ACCEPT_CAPTURE_SESSION_H
#define FAULTLINE_ACCEPT_CAPTURE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/accept/capture_session_state.h"
#include "snapshot/error.h"

struct fl_vm;

// Begins the capture of a VM that has a worker; the session is in the list. Takes the client's
// socket; or -errno and the reason, and then it does not.
int fl_capture_session_begin(struct fl_engine *engine, struct fl_loop *loop,
                             struct cds_list_head *all, const struct fl_vm *vm, uint64_t flags,
                             int socket, struct fl_error *ret_error);
// Ends one that runs: its client is told why, and its worker undoes it. It may be freed.
void fl_capture_session_fail(struct fl_capture_session *session, int error, const char *reason);
// Of one that is KEPT: nothing stays protected. It may be freed.
void fl_capture_session_forget(struct fl_capture_session *session);
// Its client hears that the engine goes. No worker is told anything.
void fl_capture_session_leave(struct fl_capture_session *session, const char *reason);
// Of one that is KEPT, whose VM has gone; or of any, when there are no workers any more.
void fl_capture_session_free(struct fl_capture_session *session);

static inline bool fl_capture_session_is_kept(const struct fl_capture_session *session)
{
    return session->phase == FL_CAPTURE_KEPT && !session->forgotten;
}

// Says no to a client that has no session. Does not take its socket.
void fl_capture_answer(int socket, int error, const char *reason);

#endif
