// SPDX-License-Identifier: Apache-2.0
//
// A link to a child process that has the index open, and the messages to that child. The process
// that packs or collects never touches LMDB itself, so a damaged LMDB file cannot end it. An answer
// of the child is a hint and is bounded. If the child ends by a signal, or computes for longer than
// a sound index takes, the index counts as damaged.
//
// One thread at a time uses a link.
#ifndef FAULTLINE_SNAPSHOT_INDEX_LINK_H
#define FAULTLINE_SNAPSHOT_INDEX_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "snapshot/index.h"
#include "snapshot/index_lmdb.h"

enum fl_index_op {
    FL_INDEX_VIEW,    // answered; once, before the first GET
    FL_INDEX_GET,     // identities; answered with a place for each, pack 0: not known
    FL_INDEX_HAS,     // pack_id; answered with 1 or 0
    FL_INDEX_BEGIN,   // grow
    FL_INDEX_RECORDS, // change, records
    FL_INDEX_COMMIT,  // pack_id, pages, known; answered with the first error since BEGIN
};

enum { FL_INDEX_RECORDS_MAX = 1024 };

// A request is one message: this structure, then the data of its operation.
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

// Starts a child for the index. Returns the child's result of opening it; -EBADMSG also if the
// child died of that.
int fl_index_link_start(const char *dir, struct fl_index_link *ret_link);
// Sends a request with `bytes` bytes of `more`. -EBADMSG: the child has ended or was killed.
int fl_index_link_send(struct fl_index_link *link, const struct fl_index_request *request,
                       const void *more, size_t bytes);
// Receives an answer: a number, and for GET `bytes` bytes of `more`. -EBADMSG likewise.
int fl_index_link_receive(struct fl_index_link *link, int *ret_number, void *ret_more,
                          size_t bytes);
// Ends the child and the link. A second call is a no-op.
void fl_index_link_end(struct fl_index_link *link);

// The main function of the child: answers until the other end of fd is closed.
_Noreturn void fl_index_child(const char *dir, int fd);

#endif
