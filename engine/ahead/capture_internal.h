// SPDX-License-Identifier: Apache-2.0
//
// What the files of a capture share: capture_life.c (its making), capture.c (its phases),
// capture_arm.c (write protection), capture_copy.c (copying), capture_remove.c (what the guest
// gives back meanwhile). Owner only.
#ifndef FAULTLINE_AHEAD_CAPTURE_INTERNAL_H
#define FAULTLINE_AHEAD_CAPTURE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/vm/capture_state.h"

struct fl_shard;
struct fl_vm;

// Read from the VM at once: what a slice copies. A thread of the guest that writes to another page
// waits for as long.
#define FL_CAPTURE_BOUNCE ((size_t)64 << 10)

struct fl_capture *fl_capture_ref(struct fl_capture *capture);

static inline bool fl_capture_is_paused(const struct fl_capture *capture)
{
    return (capture->flags & FL_CAPTURE_WHILE_PAUSED) != 0;
}

// --- capture.c ---

// Undone at the end of the slice. The first reason counts.
__attribute__((format(printf, 3, 4))) void fl_capture_fail(struct fl_capture *capture, int error,
                                                           const char *format, ...);
void fl_capture_enter(struct fl_capture *capture, enum fl_capture_phase phase);
// What is captured is certain, or all of it is copied.
void fl_capture_frozen(struct fl_shard *shard, struct fl_vm *vm);
void fl_capture_copied(struct fl_shard *shard, struct fl_vm *vm);

// --- capture_arm.c: slices ---

bool fl_capture_prepare(struct fl_shard *shard, struct fl_vm *vm);
bool fl_capture_arm(struct fl_shard *shard, struct fl_vm *vm);
bool fl_capture_rearm(struct fl_shard *shard, struct fl_vm *vm);
bool fl_capture_arm_rest(struct fl_shard *shard, struct fl_vm *vm);
// Un-protects pages that a capture knows: now, or when the kernel will have it.
void fl_capture_unprotect(struct fl_vm *vm, uint64_t page, uint64_t count);
// Some of those that it would not have before.
void fl_capture_unprotect_owed(struct fl_shard *shard, struct fl_vm *vm);

// --- capture_copy.c ---

// Who wants it copied.
enum fl_capture_by { FL_CAPTURE_BY_SWEEP, FL_CAPTURE_BY_FAULT };

// Some of the pages from *page on, up to `end`; *page goes on behind what is done. False if it
// fails.
bool fl_capture_copy(struct fl_vm *vm, uint64_t *page, uint64_t end, enum fl_capture_by by);
bool fl_capture_sweep(struct fl_shard *shard, struct fl_vm *vm);

#endif
