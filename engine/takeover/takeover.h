// SPDX-License-Identifier: Apache-2.0
//
// Taking over what another process had: the records of an engine that served before, from the
// keeper; and VMs that somebody else left behind, from `faultline rescue`. Control thread.
#ifndef FAULTLINE_TAKEOVER_TAKEOVER_H
#define FAULTLINE_TAKEOVER_TAKEOVER_H

#include <stdint.h>

#include "engine/link/channel.h"

struct fl_server;

// One message of a record. Takes the descriptors that it wants (they are -1 after this). VMs are
// served as they come, and as soon as their image is open.
void fl_takeover_record(struct fl_server *server, const struct fl_message *message,
                        int fds[FL_CHANNEL_FDS]);

// A VM whose record said that it is held may be served from now on.
void fl_takeover_freed(struct fl_server *server, uint64_t vm);

// A VM that has been left behind: its state memfd, userfaultfd and pidfd. An empty image name in
// its state: every fault is poisoned. answer() is called once, with an error and a sentence, or 0
// when it is served; not necessarily before this returns.
void fl_takeover_orphan(struct fl_server *server, int fds[FL_CHANNEL_FDS], uint64_t flags,
                        void (*answer)(void *arg, int error, const char *text), void *arg);
// Answers what fl_takeover_orphan() would, and adopts nothing.
void fl_takeover_check(struct fl_server *server, int fds[FL_CHANNEL_FDS],
                       void (*answer)(void *arg, int error, const char *text), void *arg);

#endif
