// SPDX-License-Identifier: Apache-2.0
//
// How often the log says the same thing. There are limits for the lines of one event about one peer
// of one image, for those of one event about one image, and for those of one event: a peer that
// makes its own line ten thousand times holds back no line of another. Each limit allows a burst,
// and then so many lines a second. What is held back is counted, and told when the burst is over.
// One thread at a time.
#ifndef FAULTLINE_BASE_LOG_LIMIT_H
#define FAULTLINE_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/log_record.h"

enum {
    FL_LOG_LIMIT_WAYS = 8, // places where one key may stand
    FL_LOG_LIMIT_SETS = 32,
    FL_LOG_LIMIT_KINDS = 3, // of a peer, of an image, of an event
    FL_LOG_LIMIT_WORD = 32,
    FL_LOG_LIMIT_IMAGE = 136
};

struct fl_log_limited {
    char event[FL_LOG_LIMIT_WORD];
    char image[FL_LOG_LIMIT_IMAGE]; // "": of any image
    char peer[FL_LOG_LIMIT_WORD];   // "pid N" or "vm N"; "": of any peer
    uint64_t due_ns;                // when all that it has used is there again
    uint64_t held;                  // lines since the last that was told
    uint64_t since_ns;              // of the first of `held`
    uint64_t last_ns;               // of the last line, held back or not
    uint64_t turn;                  // grows with each line
};

struct fl_log_limit {
    struct fl_log_limited entry[FL_LOG_LIMIT_KINDS][FL_LOG_LIMIT_SETS][FL_LOG_LIMIT_WAYS];
    uint64_t turn;
    uint64_t held;      // in all entries, not told yet
    uint64_t forgotten; // of entries whose place another one took, not told yet
};

// True if the line may be written now.
bool fl_log_limit_allows(struct fl_log_limit *limit, const struct fl_log_record *record,
                         uint64_t now_ns);
// Makes a record of something that was held back and is to be told now: after a pause of a second,
// or after 10 s; everything if `all`. False if there is nothing (yet).
bool fl_log_limit_tell(struct fl_log_limit *limit, uint64_t now_ns, bool all,
                       struct fl_log_record *ret_record);

#endif
