// SPDX-License-Identifier: Apache-2.0
//
// The log: one line an event, key=value, on stderr, written at once so that lines of several
// threads do not mix, and dropped (and counted) rather than waited for. Under journald
// (JOURNAL_STREAM is set) each line starts with its priority.
#ifndef FAULTLINE_BASE_LOG_H
#define FAULTLINE_BASE_LOG_H

#include <stddef.h>

enum fl_log_level { FL_LOG_ERROR = 3, FL_LOG_WARNING = 4, FL_LOG_INFO = 6 };

// Any thread. The format begins with event=NAME; longer lines than 1 KiB are cut, and control
// characters that a value has become '?'.
__attribute__((format(printf, 2, 3))) void fl_log(enum fl_log_level level, const char *format, ...);

// Text from outside, made fit to stand between double quotes in a log line: quotes, backslashes and
// control characters become '?'. Returns buf.
const char *fl_log_text(const char *text, char *buf, size_t size);
// The same for a value that stands without quotes, a path: as it is if it is one plain word, else
// in quotes of its own. The caller's, from malloc; NULL without memory.
char *fl_log_new_word(const char *text);

#endif
