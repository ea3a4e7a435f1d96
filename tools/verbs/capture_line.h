// SPDX-License-Identifier: Apache-2.0
//
// The connection over which a command has an engine capture a VM (engine/link/channel.h). The
// connection is the capture: when it is closed without capture_line_commit(), the engine undoes
// all. One thread; but any thread may look at the board, and call capture_line_is().
#ifndef FAULTLINE_TOOLS_VERBS_CAPTURE_LINE_H
#define FAULTLINE_TOOLS_VERBS_CAPTURE_LINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/capture_board.h"
#include "snapshot/error.h"
#include "snapshot/read.h"

struct capture_line {
    int channel; // -1: none
    int buffer;  // the bytes of page p are at p * 4096
    struct fl_capture_board *board;
    uint64_t board_bytes;
    uint64_t image_pages;
    uint64_t granted;              // FL_CAPTURE_*
    char parent[FL_NAME_MAX + 1];  // "": there is none
    uint8_t parent_content_id[32]; // of the parent
    _Atomic int phase;             // enum fl_capture_phase
    struct fl_error failure;       // why, once the phase is FAILED
};

// Asks the engine of the server with this control socket to capture a VM; flags: FL_CAPTURE_*.
// Returns 0, or -errno and a sentence, and then nothing is open. capture_line_close() is a no-op
// then.
int capture_line_open(const char *control, uint64_t vm, uint64_t flags,
                      struct capture_line *ret_line, struct fl_error *ret_error);
void capture_line_close(struct capture_line *line);

// Reads what has come, without waiting. line->channel can be polled.
void capture_line_hear(struct capture_line *line);
// Whether the phase is this one or one after it, and has not FAILED; whether it has failed.
bool capture_line_is(const struct capture_line *line, enum fl_capture_phase phase);
bool capture_line_failed(const struct capture_line *line);

// The VM is paused; what is written from now on is not in the image.
int capture_line_freeze(struct capture_line *line);
// The image is published, with this content.
int capture_line_commit(struct capture_line *line, const char *image, const uint8_t content_id[32]);

// Whether a bit of one of the board's bitmaps is set; all of `count` bits from `first` on.
bool capture_board_has(const struct capture_line *line, uint64_t bitmap_offset, uint64_t page);
uint64_t capture_board_count(const struct capture_line *line, uint64_t bitmap_offset,
                             uint64_t first, uint64_t count);
bool capture_board_done(const struct capture_line *line, uint64_t first, uint64_t count);

#endif
