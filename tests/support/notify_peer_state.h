// SPDX-License-Identifier: Apache-2.0
//
// Inside of the notify peer: what its two files share.
#ifndef FAULTLINE_TESTS_SUPPORT_NOTIFY_PEER_STATE_H
#define FAULTLINE_TESTS_SUPPORT_NOTIFY_PEER_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "tests/support/fd_store.h"
#include "tests/support/notify_peer.h"

struct notify_peer {
    struct notify_peer_options options;
    char invocation[64]; // INVOCATION_ID=...
    char address[128];   // NOTIFY_SOCKET=@...
    int socket;
    int end; // an eventfd that ends the thread
    pthread_t thread;

    // All below.
    pthread_mutex_t lock;
    struct fd_store store;
    struct notify_peer_seen seen;
    pid_t pid;     // main process; 0: none
    bool ready;    // READY=1 from it
    long heard_ms; // last WATCHDOG=1 of it, or READY=1
};

static inline long test_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// The thread: takes messages until peer->end is written to.
void *notify_peer_listen(void *arg);
// Takes all messages that are there. The lock is held.
void notify_peer_take(struct notify_peer *peer);

#endif
