// SPDX-License-Identifier: Apache-2.0
//
// What an engine's link to the keeper is given: what it works with, and what it calls when the
// keeper says something.
#ifndef FAULTLINE_LINK_KEEPER_LINK_OPS_H
#define FAULTLINE_LINK_KEEPER_LINK_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/loop.h"
#include "engine/link/channel.h"

// Each is required and is called in the control thread, with the `arg` of the options. All but
// lost() are called from fl_keeper_link_run(), from the loop, or from
// fl_keeper_link_change_keeper(), never from within another: what the keeper says while an answer
// is waited for is put aside until then. So they may call every function of keeper_link.h but
// fl_keeper_link_stop(), and may block only for as long as the keeper's heartbeat allows.
struct fl_keeper_link_ops {
    // A record of a predecessor. It takes the descriptors that it needs and leaves -1 in their
    // places; the others are closed. Comes only before serve().
    void (*record)(void *arg, const struct fl_message *message, int fds[FL_CHANNEL_FDS]);
    // The VM `id`, which came as FL_VM_HELD, may be served.
    void (*freed)(void *arg, uint64_t id);
    // That was every record: begins to serve, and says fl_keeper_link_serving() unless it cannot.
    // `generation`: which engine of its keeper this is, 1 the first.
    void (*serve)(void *arg, uint64_t generation);
    // Puts every record that a keeper is to hold; returns how many of them are VMs. For a keeper
    // that is new, or has not got all of them.
    unsigned (*put_all)(void *arg);
    // Answers with fl_keeper_link_pong(), later, when every thread has been through its loop.
    void (*ping)(void *arg);
    // SIGTERM has come. VMs may take so long to be filled; asked again, they have no more time.
    void (*stop)(void *arg, uint64_t timeout_ms);
    // Halts all threads, says fl_keeper_link_yielded() and ends the process: it does not return.
    void (*yield)(void *arg);
    // The keeper has gone. `outside`: a service manager has all that it had. This one may be called
    // from within every function that puts, asks or drops, and from the other callbacks: it only
    // notes it, and may not put, ask or drop anything. It may end the process.
    void (*lost)(void *arg, bool outside);
};

struct fl_keeper_link_options {
    // All of these outlive the link.
    struct fl_loop *loop; // the control thread's
    int channel;          // to the keeper, taken; -1: there is none
    int life_fd;          // by which the keeper sees the engine's end (death_watch.h); not taken
    const struct fl_keeper_link_ops *ops;
    void *arg;
};

#endif
