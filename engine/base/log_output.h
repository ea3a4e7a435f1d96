// SPDX-License-Identifier: Apache-2.0
//
// Where records go: to journald with a field for each key, if stderr leads there, else to stderr as
// a line. The log's thread; what may block says so.
#ifndef FAULTLINE_BASE_LOG_OUTPUT_H
#define FAULTLINE_BASE_LOG_OUTPUT_H

#include <stdbool.h>

#include "engine/base/log_record.h"

// Finds out where stderr leads; again when it has changed. Any thread.
void fl_log_output_open(void);

// May block for as long as the reader of the log does not read. False: the line is lost.
bool fl_log_output_write(const struct fl_log_record *record, const char *process);

// The same for any thread, and for a signal handler: never blocks, and knows no fields of journald.
bool fl_log_output_try(const struct fl_log_record *record, const char *process);

#endif
