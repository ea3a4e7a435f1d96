// SPDX-License-Identifier: Apache-2.0
//
// The log: one event a line, key=value (docs/logs.md). No thread but the log's own writes it: the
// others leave a record in a bounded queue (log_queue.h), and never wait for a pipe, a terminal or
// a journal that is not read. What does not fit is dropped, and what one peer makes too often is
// held back (log_limit.h); both are counted, and said.
//
// Before fl_log_start() and after fl_log_stop() a line is written by its own thread, if it can be
// written at once. A child between fork() and exec() must not log.
#ifndef FAULTLINE_BASE_LOG_H
#define FAULTLINE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/log_level.h"

// Any thread; never blocks. The format is a row of KEY=VALUE and KEY="VALUE", the first of which
// has the key `event`; a VALUE may consist of text and of the conversions that log_record.h names.
// Values are escaped when the line is written, so that none can end a line or make a key.
__attribute__((format(printf, 2, 3))) void fl_log(enum fl_log_level level, const char *format, ...);

// Lines of a lower level than this one are not made. Any thread.
void fl_log_set_level(enum fl_log_level least);
// Finds the level of a name: error, warning, info or debug. False if there is none.
bool fl_log_parse_level(const char *name, enum fl_log_level *ret_level);

// Starts the thread that writes; every line says that it comes from `process`, which must stay.
// Returns 0 or -errno: lines are then written by their own threads.
int fl_log_start(const char *process);
// What the process is from now on. Any thread.
void fl_log_set_process(const char *process);
// From now on the log goes to a duplicate of this descriptor, as stderr. Any thread.
void fl_log_move(int fd);
// Waits until everything that was logged before is written, or the reader of the log has taken
// nothing for 200 ms. Any thread but those that must not wait.
void fl_log_flush(void);
// Says what was held back, flushes, and ends the thread (it stays if it cannot write).
void fl_log_stop(void);

struct fl_log_counts {
    uint64_t dropped;   // lines that did not fit into the queue, or could not be written
    uint64_t held_back; // lines above the limit of their event and peer
};

// Any thread.
void fl_log_count(struct fl_log_counts *ret_counts);

// Text from outside, made fit to stand between double quotes in JSON and elsewhere: quotes,
// backslashes and control characters become '?'. Not needed for fl_log(). Returns buf.
const char *fl_log_text(const char *text, char *buf, size_t size);

#endif
