// SPDX-License-Identifier: Apache-2.0
//
// Taking over what another process had: the records of an engine that served before, from the
// keeper; and VMs that another handler left behind, from `faultline rescue`. Control thread.
#ifndef FAULTLINE_TAKEOVER_TAKEOVER_H
#define FAULTLINE_TAKEOVER_TAKEOVER_H

#include <stdint.h>

#include "engine/link/channel.h"
#include "engine/takeover/inherited_counters.h"
#include "engine/takeover/inherited_images.h"

struct fl_acceptor;

// Embedded in the server.
struct fl_takeover {
    struct fl_acceptor *acceptor; // takes listeners and connections
    struct fl_inherited_images images;
    struct fl_inherited_counters counters;
    uint64_t mode; // FL_MODE_* of the predecessor
};

// When the engine has started.
void fl_takeover_init(struct fl_takeover *takeover, struct fl_acceptor *acceptor);
// All records have come.
void fl_takeover_complete(struct fl_takeover *takeover);
// At the server's end, before its engine's.
void fl_takeover_stop(struct fl_takeover *takeover);

// One message of a record. Takes the descriptors that it wants (they are -1 after this). VMs are
// served as they come, and as soon as their image is open.
void fl_takeover_record(struct fl_takeover *takeover, const struct fl_message *message,
                        int fds[FL_CHANNEL_FDS]);

// A VM whose record said that it is held may be served from now on.
void fl_takeover_freed(struct fl_takeover *takeover, uint64_t vm);

// A VM that has been left behind: its state memfd, userfaultfd and pidfd. An empty image name in
// its state: every fault is poisoned. answer() is called once, with an error and a sentence, or 0
// when it is served; not necessarily before this returns.
void fl_takeover_orphan(struct fl_takeover *takeover, int fds[FL_CHANNEL_FDS], uint64_t flags,
                        void (*answer)(void *arg, int error, const char *text), void *arg);
// Answers what fl_takeover_orphan() would, and adopts nothing.
void fl_takeover_check(struct fl_takeover *takeover, int fds[FL_CHANNEL_FDS],
                       void (*answer)(void *arg, int error, const char *text), void *arg);

#endif
