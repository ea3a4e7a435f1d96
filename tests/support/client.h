// SPDX-License-Identifier: Apache-2.0
//
// A process of the test's own that plays a VMM: a forked child that runs a function, so that it can
// be killed, and talks with the test in single bytes. Every wait has a deadline.
#ifndef FAULTLINE_TESTS_SUPPORT_CLIENT_H
#define FAULTLINE_TESTS_SUPPORT_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// What the test and the client share.
struct client_shared {
    _Atomic uint64_t progress; // pages touched so far, by all threads
    atomic_bool failed;        // a thread of the client writes `failure`, or has
    char failure[1024];        // what client_fail() said first
};

struct client {
    pid_t pid; // 0: not running
    int channel;
    struct client_shared *shared;
};

// In the client: `channel` leads to the test. What it returns is its exit status.
typedef int client_main(int channel, struct client_shared *shared, void *arg);

void client_start(struct client *client, client_main *main, void *arg);
// Its exit status, 128 + signal, or -1 if it had to be killed after the deadline.
int client_wait(struct client *client);
// SIGKILL, and reap. Does nothing for one that is not running.
void client_kill(struct client *client);
// The condition that did not hold (CHECK) in the client that was reaped last, as it told it; empty
// if there was none.
const char *client_failure(void);

// The test's side: false if it does not say this (but something else, or nothing in time).
bool client_says(struct client *client, char what);
void client_tell(struct client *client, char what);
// Tells one that does as it is told all of these, one by one; it says 'd' when each is done.
bool client_obeys(struct client *client, const char *orders);
// Waits until it has touched this many pages.
bool client_progressed(struct client *client, uint64_t pages);
// Waits until this many of its threads wait for a page.
bool client_waits(struct client *client, unsigned threads);

// The client's side. Waiting for a test that has gone ends the client.
void tell_test(int channel, char what);
void await_test(int channel, char what);
// What the test tells next.
char next_order(int channel);

// In a client (or one of its threads): end it with a message unless the condition holds.
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            client_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                              \
    } while (0)
_Noreturn void client_fail(const char *file, int line, const char *condition, const char *format,
                           ...) __attribute__((format(printf, 4, 5)));

#endif
