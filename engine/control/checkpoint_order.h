// SPDX-License-Identifier: Apache-2.0
//
// What a client wants that orders a checkpoint, and the command line that makes it. Any thread.
#ifndef FAULTLINE_CONTROL_CHECKPOINT_ORDER_H
#define FAULTLINE_CONTROL_CHECKPOINT_ORDER_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/image_name.h"
#include "snapshot/error.h"

struct fl_checkpoint_order {
    uint64_t vm;
    char name[FL_IMAGE_NAME_BYTES]; // of the image to be
    char arguments[4096];           // of the command, each with a line's end
};

// Reads the body of a request (docs/control-api.md). 0, or -EINVAL and a sentence.
int fl_checkpoint_order_read(json_t *body, const char *control,
                             struct fl_checkpoint_order *ret_order, struct fl_error *ret_error);

#endif
