// SPDX-License-Identifier: Apache-2.0
//
// The other end of a capture (engine/link/channel.h, engine/vm/capture_board.h): asks an engine for
// one, and puts the image together from the board and the buffer. Independent of tools/. Every wait
// has a deadline. For tests of any kind: it asserts nothing.
#ifndef FAULTLINE_TESTS_SUPPORT_CAPTURE_CLIENT_H
#define FAULTLINE_TESTS_SUPPORT_CAPTURE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/link/channel.h"
#include "engine/vm/capture_board.h"

struct capture_client {
    int channel;                    // -1: closed
    uint64_t granted;               // FL_CAPTURE_*, once begun
    enum fl_capture_phase phase;    // told last
    int error;                      // of the refusal or the failure
    char text[FL_CHANNEL_TEXT];     // the parent, then the reason of a refusal or a failure
    struct fl_capture_board *board; // NULL: not begun
    uint64_t board_bytes;
    int buffer_fd;
    const uint8_t *buffer; // image_pages of 4 KiB
    uint64_t *taken;       // pages that capture_take() has seen
    uint64_t left;         // pages that it has not
};

// Connects to CONTROL.keeper: false if nobody is there.
bool capture_connect(struct capture_client *capture, const char *control);
// Asks for the capture of a VM. 0 when it has begun; what it was refused with, and the reason in
// `text`; -EPIPE if the engine hangs up, -ETIMEDOUT.
int capture_begin(struct capture_client *capture, uint64_t vm, uint64_t flags);
// The VM is paused; the image is published. False if the engine has hung up.
bool capture_freeze(struct capture_client *capture);
bool capture_commit(struct capture_client *capture, const char *image);
// Waits until that phase, or a later one, is told. False if it FAILED, with `error` and `text`; if
// the engine hangs up (-EPIPE) or says nothing (-ETIMEDOUT) or what it should not (-EPROTO).
bool capture_await(struct capture_client *capture, enum fl_capture_phase phase);
// Puts what is done and was not seen yet into `image`, which had the parent's bytes, and punches it
// out of the buffer. False, and `text` says why, if board and buffer do not agree.
bool capture_take(struct capture_client *capture, uint8_t *image);
// From READY (the VM is paused by now) or FROZEN on, until all is copied. False as capture_await()
// and capture_take().
bool capture_take_all(struct capture_client *capture, uint8_t *image);
// Closes the connection: the capture ends, unless it was committed.
void capture_close(struct capture_client *capture);

#endif
