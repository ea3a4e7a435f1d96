// SPDX-License-Identifier: Apache-2.0
//
// The notify peer's protocol: what a message asks for.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/notify_peer_state.h"

enum { FDS_MAX = 253, TEXT_MAX = 4096, TICK_MS = 20 };

struct notice {
    char text[TEXT_MAX + 1];
    int fd[FDS_MAX];
    unsigned fds;
    pid_t sender;
};

// The value of NAME= in the message's lines, copied; false: it is not there.
static bool value_of(const struct notice *notice, const char *name, char *ret_value, size_t size)
{
    size_t length = strlen(name);
    for (const char *line = notice->text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            snprintf(ret_value, size, "%.*s", (int)strcspn(line + length + 1, "\n"),
                     line + length + 1);
            return true;
        }
    }
    return false;
}

static bool says(const struct notice *notice, const char *name)
{
    char value[8];
    return value_of(notice, name, value, sizeof value) && strcmp(value, "1") == 0;
}

// The descriptors become the store's.
static void take_fds(struct notify_peer *peer, struct notice *notice)
{
    char name[512], polled[8];
    bool watched = !value_of(notice, "FDPOLL", polled, sizeof polled) || strcmp(polled, "0") != 0;
    bool named = value_of(notice, "FDNAME", name, sizeof name);
    for (unsigned i = 0; i < notice->fds; i++) {
        switch (fd_store_add(&peer->store, peer->options.store_max, named ? name : NULL,
                             notice->fd[i], watched)) {
        case FD_STORE_ADDED:
            peer->seen.stored++;
            break;
        case FD_STORE_TWICE:
            peer->seen.twice++;
            break;
        case FD_STORE_FULL:
            peer->seen.too_many++;
            break;
        }
    }
    notice->fds = 0;
}

static void take_states(struct notify_peer *peer, const struct notice *notice)
{
    if (says(notice, "READY"))
        peer->ready = true, peer->seen.ready++, peer->heard_ms = test_now_ms();
    if (says(notice, "WATCHDOG"))
        peer->seen.watchdog++, peer->heard_ms = test_now_ms();
    peer->seen.reloading += says(notice, "RELOADING");
    peer->seen.stopping += says(notice, "STOPPING");
    value_of(notice, "STATUS", peer->seen.status, sizeof peer->seen.status);
}

static void take_message(struct notify_peer *peer, struct notice *notice)
{
    char name[512];
    if (strcmp(notice->text, "BARRIER=1") == 0) { // from whomever
        peer->seen.barriers++;
        return;
    }
    if (notice->sender != peer->pid || peer->pid == 0) {
        peer->seen.refused++;
        return;
    }
    take_states(peer, notice);
    if (says(notice, "FDSTOREREMOVE") && value_of(notice, "FDNAME", name, sizeof name)) {
        fd_store_remove(&peer->store, name);
        peer->seen.removed++;
    } else if (says(notice, "FDSTORE")) {
        take_fds(peer, notice);
    }
}

static void unpack(struct msghdr *message, struct notice *notice)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            notice->fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(notice->fd, CMSG_DATA(c), notice->fds * sizeof(int));
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred sender;
            memcpy(&sender, CMSG_DATA(c), sizeof sender);
            notice->sender = sender.pid;
        }
    }
}

// Takes one message if there is one; whether there was.
static bool take(struct notify_peer *peer)
{
    struct notice notice = {.sender = 0};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof notice.fd) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec data = {.iov_base = notice.text, .iov_len = TEXT_MAX};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    if (recvmsg(peer->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
        return false;
    unpack(&message, &notice);
    take_message(peer, &notice);
    for (unsigned i = 0; i < notice.fds; i++)
        close(notice.fd[i]);
    return true;
}

void notify_peer_take(struct notify_peer *peer)
{
    while (take(peer))
        ;
}

// What time brings: the watchdog, and descriptors that have hung up.
static void tick(struct notify_peer *peer)
{
    long wait_ms = peer->options.watchdog_ms;
    if (wait_ms && peer->ready && peer->pid && test_now_ms() - peer->heard_ms > wait_ms) {
        peer->seen.late++;
        peer->ready = false; // once
        kill(peer->pid, SIGABRT);
    }
    peer->seen.hung_up += fd_store_check(&peer->store);
}

void *notify_peer_listen(void *arg)
{
    struct notify_peer *peer = arg;
    for (;;) {
        struct pollfd p[2] = {{.fd = peer->socket, .events = POLLIN},
                              {.fd = peer->end, .events = POLLIN}};
        poll(p, 2, TICK_MS);
        if (p[1].revents)
            return NULL;
        pthread_mutex_lock(&peer->lock);
        notify_peer_take(peer);
        tick(peer);
        pthread_mutex_unlock(&peer->lock);
    }
}
