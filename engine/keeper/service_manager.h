// SPDX-License-Identifier: Apache-2.0
//
// The service manager's side of our life: what we tell it ($NOTIFY_SOCKET), the descriptors it
// keeps for us while we are not there (systemd's fd store), and those it gave us when it started
// us. Keeper only, in its one thread: reads and changes the environment.
//
// No call hangs. The socket is a datagram socket: when the manager does not read, its queue (10 to
// 512 messages) fills, and a blocking send, which is what libsystemd's sd_notify() does, would then
// wait as long as the manager sleeps, and every VM with it. Here a message waits at most
// FL_SM_WAIT_MS for room. When that was in vain, the next ones do not wait at all until one has got
// through: a manager that is stuck costs its wait once, not once a message. Such a message is not
// sent: the answer is -EAGAIN, and the caller says it again later.
#ifndef FAULTLINE_KEEPER_SERVICE_MANAGER_H
#define FAULTLINE_KEEPER_SERVICE_MANAGER_H

#include <stdbool.h>
#include <stdint.h>

enum { FL_SM_WAIT_MS = 1000, FL_SM_NAME_MAX = 255 };

// A service manager wants to hear from us.
bool fl_sm_present(void);
// ... and keeps descriptors for us: systemd 254 and later say so in $FDSTORE; for those before, our
// unit, which asks for the store, sets FAULTLINE_FDSTORE=1. There is no answer to a message, so
// this is what we were told, not what was seen.
bool fl_sm_keeps(void);

// "READY=1\nSTATUS=...", "RELOADING=1", "STOPPING=1", "WATCHDOG=1", "MAINPID=...". 0, -ENOTCONN
// without a manager, -EAGAIN if it does not read, or another -errno of the socket.
int fl_sm_notify(const char *state);

// Has fd kept under this name; it stays ours too. The manager does not watch it (FDPOLL=0): it
// would else drop, say, the pidfd of a VM that has ended. It silently ignores a description (dup()
// and fork() share one) that it keeps already under whatever name, and what exceeds its limit.
// -EINVAL: no name that a manager takes (1 to FL_SM_NAME_MAX printable ASCII characters, no colon).
int fl_sm_store(const char *name, int fd);
// Has all of this name let go; none of this name is no error.
int fl_sm_remove(const char *name);

// Returns 0 when the manager has acted on everything said before; -ETIMEDOUT, or as above.
int fl_sm_barrier(uint64_t timeout_ms);

// How often to send WATCHDOG=1, in milliseconds: half of what the manager waits for it. 0: it does
// not.
uint64_t fl_sm_watchdog_ms(void);

// Calls fn with each descriptor that the manager started us with, and its name ("unknown" if it has
// none); they are close-on-exec from now on, and fn owns them. Unsets the variables that told of
// them. How many, or -errno, and then none was handed out.
int fl_sm_inherit(void (*fn)(void *arg, const char *name, int fd), void *arg);

#endif
