// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A mail is the sender's until fl_mailbox_post(), the queue's until its
// delivery, and the receiver's from then on; it is in one queue at a time. The queue is urcu's
// wfcqueue: any number of senders, one receiver, no lock.
//
// Sleep and wake: the owner sets `asleep`, then looks whether the queue is empty, and only then
// blocks on the eventfd; a sender enqueues (a full barrier), then exchanges `asleep` for 0. So
// either the owner sees the mail, or the one sender that got the 1 writes to the eventfd.
#include "engine/base/mailbox.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <urcu/compiler.h>
#include <urcu/uatomic.h>

#include "engine/base/crash_point.h"
#include "engine/base/rcu.h"

int fl_mailbox_init(struct fl_mailbox *box)
{
    cds_wfcq_init(&box->head, &box->tail);
    box->asleep = 0;
    box->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return box->event_fd < 0 ? -errno : 0;
}

static struct fl_mail *take_mail(struct fl_mailbox *box)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&box->head, &box->tail);
    if (!node)
        return NULL;
    struct fl_mail *mail = caa_container_of(node, struct fl_mail, node);
    __tsan_acquire(mail);
    return mail;
}

void fl_mailbox_fini(struct fl_mailbox *box)
{
    struct fl_mail *mail;
    while ((mail = take_mail(box)) != NULL) {
        if (mail->drop)
            mail->drop(mail);
    }
    close(box->event_fd);
    cds_wfcq_destroy(&box->head, &box->tail);
}

void fl_mailbox_post(struct fl_mailbox *box, struct fl_mail *mail)
{
    cds_wfcq_node_init(&mail->node);
    __tsan_release(mail);
    cds_wfcq_enqueue(&box->head, &box->tail, &mail->node); // a full barrier
    FL_CRASH_POINT("mail_posted");
    // Pairs with the exchange in fl_mailbox_sleep(): either we see "asleep" or the owner sees the
    // mail.
    if (__atomic_exchange_n(&box->asleep, 0, __ATOMIC_SEQ_CST)) {
        uint64_t one = 1;
        ssize_t written = write(box->event_fd, &one, sizeof(one));
        (void)written; // it fails only when the counter is full, and then it is readable
    }
}

bool fl_mailbox_drain(struct fl_mailbox *box, void *owner)
{
    bool any = false;
    struct fl_mail *mail;
    while ((mail = take_mail(box)) != NULL) {
        mail->deliver(owner, mail);
        any = true;
    }
    return any;
}

bool fl_mailbox_sleep(struct fl_mailbox *box)
{
    __atomic_exchange_n(&box->asleep, 1, __ATOMIC_SEQ_CST);
    FL_CRASH_POINT("mailbox_asleep");
    if (cds_wfcq_empty(&box->head, &box->tail))
        return true;
    fl_mailbox_awake(box);
    return false;
}

bool fl_mailbox_sleeps(struct fl_mailbox *box)
{
    return __atomic_load_n(&box->asleep, __ATOMIC_SEQ_CST);
}

void fl_mailbox_awake(struct fl_mailbox *box)
{
    uint64_t count;
    __atomic_store_n(&box->asleep, 0, __ATOMIC_SEQ_CST);
    // Always: a poster may have written only after an earlier wake-up for another reason.
    ssize_t got = read(box->event_fd, &count, sizeof(count));
    (void)got;
}
