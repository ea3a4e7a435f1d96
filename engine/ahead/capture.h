// SPDX-License-Identifier: Apache-2.0
//
// A capture: the pages of a VM as they are at one moment, copied while the guest goes on. What it
// brings forth is the board and the buffer of vm/capture_board.h. How it is done, and what excludes
// what: docs/engine.md, "Captures".
//
// A capture is made in the control thread, begun in the thread that owns the VM, and goes with the
// VM from owner to owner. Reference-counted: who made it has one reference, and the VM another
// from its beginning until nothing of it is left to do. It may outlive the VM.
#ifndef FAULTLINE_AHEAD_CAPTURE_H
#define FAULTLINE_AHEAD_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/capture_state.h"
#include "snapshot/error.h"

struct fl_shard;
struct fl_vm;

// Tells of each phase, once and in order, in the thread that owns the VM; it must not block, and
// calls nothing of this header but fl_capture_granted() and fl_capture_parent(). Nothing comes
// after FAILED (with -errno and a sentence, which is the callee's only within the call); after
// KEPT; and after COPIED if KEEP_ARMED was not granted.
typedef void fl_capture_tell(void *arg, enum fl_capture_phase phase, int error, const char *reason);

struct fl_capture_wish {
    uint64_t flags;       // FL_CAPTURE_*
    uint64_t ahead_bytes; // in the buffer, that the reader has not taken yet
    fl_capture_tell *tell;
    void *arg; // stays until the last word was told, if the capture was begun
};

// Control thread, within an RCU read section. -ENOMEM, -EMFILE ...
int fl_capture_new(const struct fl_vm *vm, const struct fl_capture_wish *wish,
                   struct fl_capture **ret_capture, struct fl_error *ret_error);
// Any thread. The memfds, which stay the capture's.
int fl_capture_board_fd(const struct fl_capture *capture);
int fl_capture_buffer_fd(const struct fl_capture *capture);
// Any thread. Of a capture that was begun: not before FAILED, or the last word, was told.
void fl_capture_unref(struct fl_capture *capture);

// Constant once ARMING was told: the flags as granted, and the parent of what is captured, as
// "CONTENTID NAME".
uint64_t fl_capture_granted(const struct fl_capture *capture);
const char *fl_capture_parent(const struct fl_capture *capture);

// --- owner only ---

// Refused by FAILED, which may be told within the call, as may be any other phase.
void fl_capture_begin(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture);
// Each of these does nothing if it is not this capture that the VM has, or if it does not fit to
// its phase. The guest is paused from the freeze until FROZEN was told.
// May not come back, as what makes calls (serve/vm_call.h).
void fl_capture_freeze(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture);
// The image is published, as "CONTENTID NAME": the next capture has it as its parent. After
// COPIED, and only with KEEP_ARMED.
void fl_capture_commit(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture,
                       const char *image);
// Undoes it, and tells FAILED with this error and sentence when no page is protected any more.
void fl_capture_cancel(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture,
                       int error, const char *reason);

// The same of whatever capture the VM has, and what it tracks since the last one.
void fl_capture_end(struct fl_vm *vm, int error, const char *reason);
// The VM is gone, and goes out of its owner's hands.
void fl_capture_vm_gone(struct fl_shard *shard, struct fl_vm *vm);
// It stops here, and goes on with the VM's next owner.
void fl_capture_suspend(struct fl_vm *vm);
void fl_capture_resume(struct fl_shard *shard, struct fl_vm *vm);

// --- owner only, and only of a VM that has one ---

// A thread waits for it to write to the page.
void fl_capture_fault(struct fl_shard *shard, struct fl_vm *vm, uint64_t page);
// How many messages may be read from the userfaultfd now, before what an event among them has the
// kernel drop is copied. *ret_more: some may wait all the same, to be asked for in the next round.
unsigned fl_capture_may_read(struct fl_shard *shard, struct fl_vm *vm, bool *ret_more);

#endif
