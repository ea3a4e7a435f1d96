// SPDX-License-Identifier: Apache-2.0
//
// Mail that its receiver has not taken when the mailbox ends.
#include <criterion/criterion.h>

#include <urcu/compiler.h>

#include "engine/base/mailbox.h"

struct letter {
    struct fl_mail mail;
    unsigned delivered;
    unsigned dropped;
};

static struct fl_mailbox box;

static void deliver(void *owner, struct fl_mail *mail)
{
    (void)owner;
    caa_container_of(mail, struct letter, mail)->delivered++;
}

static void drop(struct fl_mail *mail)
{
    caa_container_of(mail, struct letter, mail)->dropped++;
}

static void post(struct letter *letter)
{
    letter->mail.deliver = deliver;
    fl_mailbox_post(&box, &letter->mail);
}

Test(mailbox, drops_what_was_not_delivered)
{
    struct letter first = {.mail.drop = drop};
    struct letter second = {.mail.drop = drop};
    struct letter embedded = {.delivered = 0};
    struct letter last = {.mail.drop = drop};
    cr_assert_eq(fl_mailbox_init(&box), 0);
    post(&first);
    cr_assert(fl_mailbox_drain(&box, NULL));
    post(&second);
    post(&embedded);
    post(&last);
    fl_mailbox_fini(&box);
    cr_expect_eq(first.delivered, 1);
    cr_expect_eq(first.dropped, 0);
    cr_expect_eq(second.dropped, 1);
    cr_expect_eq(last.dropped, 1);
    cr_expect_eq(second.delivered + embedded.delivered + last.delivered, 0);
}
