// SPDX-License-Identifier: Apache-2.0
//
// How far the capture of a VM has come (ahead/capture.h), and what it knows of the VM's pages.
// Owner worker only, but for what is constant.
#ifndef FAULTLINE_VM_CAPTURE_STATE_H
#define FAULTLINE_VM_CAPTURE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/capture_board.h"
#include "engine/vm/task_state.h"

// "CONTENTID NAME": 64 hexadecimal digits, a space, a name.
enum { FL_CAPTURE_PARENT = 64 + 1 + 128 + 1, FL_CAPTURE_REASON = 256, FL_CAPTURE_SPANS = 16 };

struct fl_capture_span {
    uint64_t start; // addresses
    uint64_t end;
};

// What has to be copied before the next event is read: the kernel drops these pages then.
struct fl_capture_removal {
    unsigned count;
    bool all;          // whose they are is not known
    uint64_t since_ns; // since then it was not certain which threads they are
    uint64_t read_ns;  // when the last event was read
    struct fl_capture_span span[FL_CAPTURE_SPANS];
};

// Threads of the VM's process that were seen to give memory back.
struct fl_capture_removers {
    unsigned count;
    bool more; // than there is room for: any thread may
    int32_t tid[FL_CAPTURE_SPANS];
};

struct fl_capture {
    _Atomic unsigned refs;

    // Constant.
    int board_fd;
    int buffer_fd;
    struct fl_capture_board *board;
    uint64_t board_bytes;
    uint64_t *board_done; // in the board
    uint64_t *board_data;
    uint64_t *board_zero;
    uint64_t pages;       // bits of the maps below
    uint64_t ahead_units; // pages of 4 KiB that the buffer may hold
    void (*tell)(void *arg, enum fl_capture_phase phase, int error, const char *reason);
    void *arg;

    // Constant once ARMING was told.
    uint64_t flags; // FL_CAPTURE_*, as granted
    char parent[FL_CAPTURE_PARENT];

    enum fl_capture_phase phase;
    bool copying; // FREEZING: a capture in a pause copies all that there is
    bool ending;  // everything is being un-protected, and then it is over
    bool moved;   // a call may have ended unseen: what is unarmed may be protected all the same
    bool over;    // nothing more is told
    bool kept;    // what changed since the capture before is known: only that is copied
    int error;    // why it fails; 0: it does not
    char reason[FL_CAPTURE_REASON];
    char next_parent[FL_CAPTURE_PARENT]; // of the capture after this one
    // Bitmaps, one bit a page of the VM.
    uint64_t *done;     // captured, or as in the parent. Means something from the freeze on
    uint64_t *unarmed;  // may be there and not write-protected
    uint64_t *changed;  // since the last freeze: may differ from what was captured then
    uint64_t *doubtful; // given back, and the kernel may not have dropped it yet
    uint64_t *owed;     // to be un-protected, but a REMOVE was in flight
    uint64_t unarmed_count;
    uint64_t owed_count;
    uint64_t next;      // page of the pass that runs
    uint64_t hurried;   // what the reader wanted first when it was last found to be done
    uint64_t let_go_to; // up to which page the copying has un-protected what is done
    unsigned passes;    // over what was unarmed
    uint64_t begun_ns;  // FREEZING, or FROZEN
    uint64_t part;      // of the page of 2 MiB that is being copied, so many of 4 KiB are
    uint64_t part_of;   // ... which page that is
    struct fl_capture_removal removal;
    struct fl_capture_removers removers;
    int fdinfo;      // of the userfaultfd; -1: not open
    int memory;      // /proc/PID/mem; -1: not open
    uint8_t *bounce; // what was read from the VM, on its way to the buffer
    struct fl_task task;
};

#endif
