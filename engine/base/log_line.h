// SPDX-License-Identifier: Apache-2.0
//
// An event as a line of text, and its values escaped. Any thread; also in a signal handler.
#ifndef FAULTLINE_BASE_LOG_LINE_H
#define FAULTLINE_BASE_LOG_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/log_record.h"

// A line is written to a pipe in one piece, also beside lines of other processes (PIPE_BUF).
enum { FL_LOG_LINE = 4096, FL_LOG_TIME = sizeof("2026-01-01T00:00:00.000000Z") };

const char *fl_log_level_name(int level);

// UTC, as RFC 3339 has it.
void fl_log_line_time(uint64_t time_ns, char buf[FL_LOG_TIME]);

// KEY=VALUE for each field, with blanks between. A value that is not one plain word stands in
// double quotes, with \", \\, \n, \t, \r and \xNN for what could be misread. Returns the bytes.
size_t fl_log_line_fields(const struct fl_log_record *record, char *buf, size_t size);

// The whole line, with its end: time, level, process and its pid, and the fields.
size_t fl_log_line(const struct fl_log_record *record, const char *process, char *buf, size_t size);

#endif
