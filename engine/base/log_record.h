// SPDX-License-Identifier: Apache-2.0
//
// One event of the log, before it is written: its keys and values as they are, not yet escaped.
// Keys come from the format alone, so that no value can be taken for one. Any thread.
#ifndef FAULTLINE_BASE_LOG_RECORD_H
#define FAULTLINE_BASE_LOG_RECORD_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_LOG_TEXT = 2048 };

// `text` is a row of fields: '"' if the value stands in quotes in any case, else '='; the key; a
// NUL; the value; a NUL.
struct fl_log_record {
    uint64_t time_ns; // CLOCK_REALTIME
    uint16_t bytes;   // of text
    uint8_t level;
    bool cut; // the last value did not fit
    char text[FL_LOG_TEXT];
};

#define FL_LOG_RECORD_HEAD offsetof(struct fl_log_record, text)

// The conversions are %% %c %d %i %u %x %s, with flags, width and precision as numbers, and with
// h, l, ll, j, z and what <inttypes.h> makes of them. A value that does not fit is cut.
void fl_log_record_vmake(struct fl_log_record *ret_record, int level, const char *format,
                         va_list args);
__attribute__((format(printf, 3, 4))) void fl_log_record_make(struct fl_log_record *ret_record,
                                                              int level, const char *format, ...);

struct fl_log_field {
    const char *key;
    const char *value;
    bool quoted;
};

// Steps through the fields: *position is 0 at the start. False at the end.
bool fl_log_record_next(const struct fl_log_record *record, size_t *position,
                        struct fl_log_field *ret_field);
// The value of a key, or "".
const char *fl_log_record_get(const struct fl_log_record *record, const char *key);

#endif
