// SPDX-License-Identifier: Apache-2.0
//
// Messages to a thread that owns state. Senders never wait and take no lock; the owner drains the
// box in its loop. The sender writes to the eventfd only while the owner says that it may be
// asleep.
#ifndef FAULTLINE_BASE_MAILBOX_H
#define FAULTLINE_BASE_MAILBOX_H

#include <stdbool.h>

#include <urcu/wfcqueue.h>

// Embedded in what is sent. The receiver owns it from delivery on.
struct fl_mail {
    struct cds_wfcq_node node;
    void (*deliver)(void *owner, struct fl_mail *mail); // called in the owner's thread
    // Called instead if the mailbox ends first: frees what no other thread or list knows of, and
    // begins nothing. NULL: what it is embedded in is in a list, and is freed with that.
    void (*drop)(struct fl_mail *mail);
};

struct fl_mailbox {
    struct cds_wfcq_head head;
    struct cds_wfcq_tail tail;
    int event_fd; // readable when there may be mail: the owner polls it
    int asleep;   // set by the owner before it blocks
};

// 0 or -errno.
int fl_mailbox_init(struct fl_mailbox *box);
// When no thread posts any more, and before what mail without drop() is embedded in is freed.
void fl_mailbox_fini(struct fl_mailbox *box);

// Any thread.
void fl_mailbox_post(struct fl_mailbox *box, struct fl_mail *mail);

// Owner only. Delivers what is there; true if there was any.
bool fl_mailbox_drain(struct fl_mailbox *box, void *owner);
// Owner only. Call before blocking; false if mail has come in the meantime: do not block.
bool fl_mailbox_sleep(struct fl_mailbox *box);
// Any thread: the owner sleeps, or is about to, and no mail has come since.
bool fl_mailbox_sleeps(struct fl_mailbox *box);
// Owner only. Call after blocking.
void fl_mailbox_awake(struct fl_mailbox *box);

#endif
