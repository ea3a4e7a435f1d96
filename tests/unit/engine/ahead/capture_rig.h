// SPDX-License-Identifier: Apache-2.0
//
// An engine in the test's own process, with one worker and one VM: a mini-VMM of writers
// (tests/support/writers.h) in a process of its own. By it the functions of ahead/capture.h are
// called in the thread that owns the VM, and what they tell is waited for. For Criterion: failures
// are assertions. One rig a test.
#ifndef FAULTLINE_TESTS_CAPTURE_RIG_H
#define FAULTLINE_TESTS_CAPTURE_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/ahead/capture.h"
#include "tests/support/writers.h"

struct fl_engine;
struct fl_vm;

// What was told of one capture.
struct taken {
    struct fl_capture *capture;
    _Atomic int phase; // the last one, FL_CAPTURE_*
    _Atomic unsigned told;
    int error;
    char reason[256];
};

struct rig {
    struct writers *writers;
    struct memory memory;
    struct fl_engine *engine;
    struct fl_vm *vm;
    pid_t pid;
    uint64_t bytes;
};

struct rig_wish {
    uint64_t bytes;
    uint32_t page_bytes;
    unsigned regions; // 0: one
    unsigned threads; // 0: two
    unsigned removes; // as of struct writers
    unsigned rests_us;
    uint64_t ahead_bytes; // of the buffer; 0: as much as there is to be copied
};

// Skips the test where no userfaultfd is to be had.
void rig_needs(void);
struct rig *rig_start(const struct rig_wish *wish);
// The VM ends by itself: every page must be as its writers left it. False if one is not.
bool rig_vm_ends(struct rig *rig);
// Waits until the engine has no VM any more.
void rig_vm_is_let_go(struct rig *rig);
void rig_vm_dies(struct rig *rig);
void rig_stop(void);

// Has it run in the owner's thread, in the order of the calls.
void rig_in_owner(struct rig *rig, void (*run)(struct fl_shard *shard, struct fl_vm *vm, void *arg),
                  void *arg);

struct taken *rig_begin(struct rig *rig, uint64_t flags);
// False if it FAILED.
bool rig_await(struct rig *rig, struct taken *taken, enum fl_capture_phase phase);
void rig_freeze(struct rig *rig, struct taken *taken);
void rig_commit(struct rig *rig, struct taken *taken, const char *image);
void rig_cancel(struct rig *rig, struct taken *taken);
void rig_drop(struct taken *taken);
// The VM has no capture any more.
bool rig_is_free(struct rig *rig);

// Has the kernel move the VM's pages to swap; how many are there then, of 4 KiB. 0: there is none.
long rig_swap_out(struct rig *rig);

// All of the VM's image as the capture has it, over `image`, which has the parent's bytes. How many
// pages are not done.
uint64_t rig_image(struct rig *rig, const struct taken *taken, uint8_t *image);
const struct fl_capture_board *rig_board(const struct taken *taken);
// How many of the VM's pages of 4 KiB are write-protected now.
long rig_protected(struct rig *rig);

#endif
