// SPDX-License-Identifier: Apache-2.0
//
// Records on their way from the threads that log to the one that writes. A ring of bytes: what does
// not fit is not taken. The last quarter is for warnings and errors. One thread at a time.
#ifndef FAULTLINE_BASE_LOG_QUEUE_H
#define FAULTLINE_BASE_LOG_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/log_record.h"

enum { FL_LOG_QUEUE = 256 << 10 };

struct fl_log_queue {
    size_t first; // the oldest record; with `used` bytes from there on, around the end
    size_t used;
    unsigned char bytes[FL_LOG_QUEUE];
};

// False if there is no room.
bool fl_log_queue_put(struct fl_log_queue *queue, const struct fl_log_record *record);
// Takes the oldest. False if there is none.
bool fl_log_queue_take(struct fl_log_queue *queue, struct fl_log_record *ret_record);

#endif
