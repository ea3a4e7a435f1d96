// SPDX-License-Identifier: Apache-2.0
//
// A process that has the index open, and the messages to it: LMDB is never touched in the process
// that packs or collects, so that nothing that LMDB's file does can end that one. What the process
// says is a hint and is bounded; when it ends by a signal, or computes for longer than any honest
// index takes, the index is damaged.
//
// One thread at a time a link.
#ifndef FAULTLINE_SNAPSHOT_INDEX_LINK_H
#define FAULTLINE_SNAPSHOT_INDEX_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "snapshot/index_lmdb.h"

enum fl_index_op {
    FL_INDEX_VIEW,    // answered; once, before the first GET
    FL_INDEX_GET,     // identities; answered with a place for each, pack 0: not known
    FL_INDEX_HAS,     // pack_id; answered with 1 or 0
    FL_INDEX_BEGIN,   // grow
    FL_INDEX_RECORDS, // change, records
    FL_INDEX_COMMIT,  // pack_id, pages, known; answered with the first error since BEGIN
};

enum { FL_INDEX_GET_MAX = 512, FL_INDEX_RECORDS_MAX = 1024 };

// A request: this, and what belongs to it. One message.
struct fl_index_request {
    uint32_t op; // enum fl_index_op
    uint32_t count;
    uint64_t pack_id;
    uint64_t pages;
    uint32_t change; // enum fl_record_change
    bool known, grow;
};

// The largest of the two kinds of messages, in bytes.
enum {
    FL_INDEX_MESSAGE_MAX =
        sizeof(struct fl_index_request) + FL_INDEX_RECORDS_MAX * sizeof(struct fl_record)
};

struct fl_index_link {
    int fd; // -1: there is no process (any more)
    pid_t pid;
    double most; // seconds of CPU time that the last request may take
};

// 0, or what the process has said of opening the index: -EBADMSG also if it has died of it.
int fl_index_link_start(const char *dir, struct fl_index_link *ret_link);
// Sends a request with `bytes` of `more`. -EBADMSG: the process has ended or was ended.
int fl_index_link_send(struct fl_index_link *link, const struct fl_index_request *request,
                       const void *more, size_t bytes);
// The answer: a number, and with GET `bytes` of `more`. -EBADMSG likewise.
int fl_index_link_receive(struct fl_index_link *link, int *ret_number, void *ret_more,
                          size_t bytes);
// Harmless a second time.
void fl_index_link_end(struct fl_index_link *link);

// The process itself: answers until the other end is closed.
_Noreturn void fl_index_child(const char *dir, int fd);

#endif
