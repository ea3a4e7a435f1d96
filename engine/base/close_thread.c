// SPDX-License-Identifier: Apache-2.0
#include "engine/base/close_thread.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/mailbox.h"

struct closing {
    struct fl_mail mail;
    int fd;
};

static struct fl_mailbox box; // the closer thread's
static atomic_bool running;

static void close_it(void *owner, struct fl_mail *mail)
{
    (void)owner;
    struct closing *closing = caa_container_of(mail, struct closing, mail);
    close(closing->fd);
    free(closing);
}

static void *closer_main(void *argument)
{
    (void)argument;
    pthread_setname_np(pthread_self(), "fl-closer");
    for (;;) {
        fl_mailbox_drain(&box, NULL);
        if (!fl_mailbox_sleep(&box))
            continue;
        struct pollfd poll_fd = {.fd = box.event_fd, .events = POLLIN};
        poll(&poll_fd, 1, -1);
        fl_mailbox_awake(&box);
    }
    return NULL;
}

// Detached: it may be held up when the process ends.
int fl_close_thread_start(void)
{
    pthread_t thread;
    if (atomic_load(&running))
        return 0;
    int error = fl_mailbox_init(&box);
    if (error)
        return error;
    error = -pthread_create(&thread, NULL, closer_main, NULL);
    if (error) {
        fl_mailbox_fini(&box);
        return error;
    }
    pthread_detach(thread);
    atomic_store(&running, true);
    return 0;
}

void fl_close_later(int fd)
{
    if (fd < 0)
        return;
    struct closing *closing = atomic_load(&running) ? malloc(sizeof(*closing)) : NULL;
    if (closing) {
        closing->mail.deliver = close_it;
        closing->fd = fd;
        fl_mailbox_post(&box, &closing->mail);
    } else if (!atomic_load(&running)) {
        close(fd);
    } // else without memory it stays open: a descriptor less is better than a worker that waits
}
