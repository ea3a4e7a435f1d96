// SPDX-License-Identifier: Apache-2.0
//
// What a client wants that orders a checkpoint, and the command line that makes it. Any thread.
#ifndef FAULTLINE_CONTROL_CHECKPOINT_ORDER_H
#define FAULTLINE_CONTROL_CHECKPOINT_ORDER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/image_name.h"
#include "snapshot/error.h"

// What a checkpoint is of.
struct fl_checkpoint_of {
    bool process;    // that no server serves; else a VM of the status
    uint64_t number; // of the process, or of the VM
};

struct fl_checkpoint_order {
    struct fl_checkpoint_of of;
    char name[FL_IMAGE_NAME_BYTES]; // of the image to be
    char arguments[4096];           // of the command, each with a line's end
};

// {"vm": N} or {"pid": N}, of which the other is negative; false: it is neither, or both.
bool fl_checkpoint_of_read(json_int_t vm, json_int_t pid, struct fl_checkpoint_of *ret_of);
// "VM 3", "process 7".
enum { FL_CHECKPOINT_OF_TEXT = 32 };
const char *fl_checkpoint_of_text(const struct fl_checkpoint_of *of,
                                  char text[FL_CHECKPOINT_OF_TEXT]);

// Reads the body of a request (docs/control-api.md). 0, or -EINVAL and a sentence.
int fl_checkpoint_order_read(json_t *body, const char *control,
                             struct fl_checkpoint_order *ret_order, struct fl_error *ret_error);

#endif
