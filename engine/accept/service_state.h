// SPDX-License-Identifier: Apache-2.0
//
// The states of a server: what it takes, and what it lets go of. Whether there is room for a VM is
// no state but a fact of the moment (fl_acceptor.shut), and true or not in each of them.
#ifndef FAULTLINE_ACCEPT_SERVICE_STATE_H
#define FAULTLINE_ACCEPT_SERVICE_STATE_H

#include <stdbool.h>

#include "engine/base/states.h"

//  STANDBY --> OPEN --> REFUSING --> RELEASING --> STOPPING
//     |                                               ^
//     +--> CANCELLED ---------------------------------+
// Forwards any number of steps at once: a successor begins where its predecessor was (but not with
// STOPPING, which its keeper orders anew), and SIGTERM stops a server that is OPEN.
enum fl_service_state {
    FL_SERVICE_STANDBY,   // no client finds it; it owns what it is sent of a predecessor
    FL_SERVICE_OPEN,      // it takes new VMs
    FL_SERVICE_REFUSING,  // it takes no new VM
    FL_SERVICE_RELEASING, // likewise; VMs that there are, are filled and let go
    FL_SERVICE_STOPPING,  // likewise, and it ends when there is neither VM nor connection
    FL_SERVICE_CANCELLED, // a standby that ends, as STOPPING but that no client finds it
    FL_SERVICE_STATES,
};

extern const struct fl_states fl_service_states;

// It has begun to serve.
static inline bool fl_service_has_begun(enum fl_service_state state)
{
    return state != FL_SERVICE_STANDBY && state != FL_SERVICE_CANCELLED;
}

static inline bool fl_service_refuses(enum fl_service_state state)
{
    return state >= FL_SERVICE_REFUSING;
}

static inline bool fl_service_releases(enum fl_service_state state)
{
    return state >= FL_SERVICE_RELEASING;
}

static inline bool fl_service_ends(enum fl_service_state state)
{
    return state >= FL_SERVICE_STOPPING;
}

#endif
