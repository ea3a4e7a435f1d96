// SPDX-License-Identifier: Apache-2.0
//
// The few requests that a checkpoint makes of a Firecracker, over its API socket. Firecracker
// answers them one after the other. Any thread; a call waits for the answer.
#ifndef FAULTLINE_TOOLS_VERBS_FIRECRACKER_API_H
#define FAULTLINE_TOOLS_VERBS_FIRECRACKER_API_H

#include <stdbool.h>
#include <sys/types.h>

#include "snapshot/error.h"
#include "tools/cli/http_client.h"

enum firecracker_state { FIRECRACKER_NOT_STARTED, FIRECRACKER_RUNNING, FIRECRACKER_PAUSED };

struct firecracker_info {
    enum firecracker_state state;
    char version[32];
};

// Which process listens at the socket, and as which user it does. Returns 0, or -errno and a
// sentence.
int firecracker_peer(const char *api, pid_t *ret_pid, uid_t *ret_uid, gid_t *ret_gid,
                     struct fl_error *ret_error);

// Asks what it is and does.
int firecracker_describe(const char *api, unsigned timeout_ms, struct firecracker_info *ret_info,
                         struct fl_error *ret_error);

// A request that is not answered yet.
struct firecracker_request {
    struct http_exchange *exchange; // NULL: none
    struct http_answer answer[2];   // to the order to pause, if there is one, and to the last order
    unsigned orders;
    const char *api; // the caller's, until the answer
    unsigned timeout_ms;
};

// Whether all answers are there, or none will come. What has come is taken.
bool firecracker_is_answered(const struct firecracker_request *request);
// Nobody wants the answer. For none, a no-op.
void firecracker_drop(struct firecracker_request *request);

// Resumes the VM. After a failure it is not known whether it is paused.
int firecracker_resume(const char *api, unsigned timeout_ms, struct fl_error *ret_error);
// The same in two steps; the second one waits for the answer. Firecracker obeys when it has
// answered what it was told before.
int firecracker_resume_begin(const char *api, unsigned timeout_ms,
                             struct firecracker_request *ret_request, struct fl_error *ret_error);
int firecracker_resume_end(struct firecracker_request *request, struct fl_error *ret_error);

// Has it write the state of its devices to one path and its memory to the other, both as it sees
// them. Firecracker first writes the former, then it opens the latter, and in that call it waits if
// it is a FIFO without a reader. `memory` is a FIFO here, so the answer is never that it was done.
enum firecracker_create {
    FIRECRACKER_CUT_SHORT, // it had opened the FIFO, and could not make a file of it
    FIRECRACKER_REFUSED,   // any other answer: the sentence says which
    FIRECRACKER_SILENT,    // none: it has ended, or is too late
};

struct firecracker_creation {
    const char *vmstate;
    const char *memory;
    bool pauses; // the VM, before
};

// Does not wait for the answer: of a VM that does not pause, nothing is written. 0, or -errno and a
// sentence.
int firecracker_create_begin(const char *api, const struct firecracker_creation *creation,
                             unsigned timeout_ms, struct firecracker_request *ret_request,
                             struct fl_error *ret_error);
// Waits for the answer. Unless CUT_SHORT it is not known whether the VM is paused.
enum firecracker_create firecracker_create_end(struct firecracker_request *request,
                                               struct fl_error *ret_error);

#endif
