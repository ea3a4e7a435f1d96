// SPDX-License-Identifier: Apache-2.0
//
// A service manager for one service: the manager's side of sd_notify(3) and sd_listen_fds(3) as
// systemd 252 plays it for a unit with Type=notify, NotifyAccess=main, KillMode=mixed,
// FileDescriptorStoreMax= and WatchdogSec=. What differs is in docs/supervisors.md.
//
// A thread of its own takes the messages; the calls below belong to one other thread, and a service
// dies when that thread ends. The service's processes are known by INVOCATION_ID in their
// environment. Every wait has a deadline, and what fails says so on stderr.
#ifndef FAULTLINE_TESTS_SUPPORT_NOTIFY_PEER_H
#define FAULTLINE_TESTS_SUPPORT_NOTIFY_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct notify_peer;

struct notify_peer_options {
    const char *const *argv;        // NULL-terminated; [0] is a path. Not copied.
    const char *const *environment; // "NAME=VALUE", NULL-terminated; may be NULL
    const char *log;                // where its stdout and stderr are appended; NULL: ours
    unsigned store_max;             // FileDescriptorStoreMax=; 0: no store
    unsigned watchdog_ms;           // WatchdogSec=; 0: none. SIGABRT to the main process after it.
};

struct notify_peer *notify_peer_new(const struct notify_peer_options *options);
// Kills what runs, as notify_peer_stop() with SIGKILL, and forgets everything.
void notify_peer_free(struct notify_peer *peer);

// Starts the service with everything in the store and waits for READY=1. False: it ended before, or
// was not ready in time.
bool notify_peer_start(struct notify_peer *peer, unsigned timeout_ms);
// The signal to the main process only, which has timeout_ms to end before it gets SIGKILL; then
// SIGKILL to the other processes of the service, and they have ended. The main process's wait
// status, -1 if none ran. The store is emptied, as systemd does.
int notify_peer_stop(struct notify_peer *peer, int signal, unsigned timeout_ms);
// The same but keeps the store, then starts. False also if the main process did not end in time.
bool notify_peer_restart(struct notify_peer *peer, int signal, unsigned timeout_ms);
// Restart=always: waits until the main process has ended by itself, kills the others, starts.
bool notify_peer_restart_ended(struct notify_peer *peer, unsigned timeout_ms);

pid_t notify_peer_pid(struct notify_peer *peer); // the main process's; 0: none runs

// Descriptors in the store whose names begin so ("": all).
size_t notify_peer_stored(struct notify_peer *peer, const char *prefix);
// A duplicate of one of this name, close-on-exec; -1: there is none.
int notify_peer_dup(struct notify_peer *peer, const char *name);

struct notify_peer_seen {
    unsigned ready, reloading, stopping, watchdog, barriers, stored, removed;
    unsigned refused;  // messages of others than the main process
    unsigned twice;    // descriptors that were stored already, dropped
    unsigned too_many; // descriptors beyond store_max, dropped
    unsigned hung_up;  // descriptors let go because they hung up (stored without FDPOLL=0)
    unsigned late;     // times that the watchdog bit
    char status[256];  // the last STATUS=
};
// What has been taken so far, since notify_peer_new().
struct notify_peer_seen notify_peer_seen(struct notify_peer *peer);

#endif
