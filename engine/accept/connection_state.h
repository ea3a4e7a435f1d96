// SPDX-License-Identifier: Apache-2.0
//
// The states of a connection.
#ifndef FAULTLINE_ACCEPT_CONNECTION_STATE_H
#define FAULTLINE_ACCEPT_CONNECTION_STATE_H

#include <stdbool.h>

#include "engine/base/states.h"

//  NEW ----> READING ----> LOOKING ----> DECIDING ----> SETTLED
//              | ^            (reader)     |  ^  \         ^
//              v |                         v  |   \        |
//            STARVED ---> GIVEN_UP      COUNTING   ---> WAITING
//                                       (reader)
// Any state leads to SETTLED at once, but for those in which a reader has the connection.
enum fl_connection_state {
    FL_CONNECTION_NEW,      // its socket is not watched yet
    FL_CONNECTION_READING,  // its handshake is not complete; it has a deadline
    FL_CONNECTION_STARVED,  // likewise; there was no room for its descriptor: it is read once more
                            // every moment
    FL_CONNECTION_GIVEN_UP, // likewise, without a deadline: it is refused when it could be read
    FL_CONNECTION_LOOKING, // its handshake is complete: a reader has it, and looks who is behind it
    FL_CONNECTION_COUNTING, // a reader has it, and counts what it will need of the pool
    FL_CONNECTION_DECIDING, // no reader has it: within a function of the control thread
    FL_CONNECTION_WAITING,  // for its template's image to be opened
    FL_CONNECTION_SETTLED,  // a VM, refused, or gone: it is about to be freed
    FL_CONNECTION_STATES,
};

extern const struct fl_states fl_connection_states;

// It is refused if it does not say what it wants in time.
static inline bool fl_connection_has_deadline(enum fl_connection_state state)
{
    return state == FL_CONNECTION_READING || state == FL_CONNECTION_STARVED;
}

// There was no room for what is in its socket.
static inline bool fl_connection_is_starved(enum fl_connection_state state)
{
    return state == FL_CONNECTION_STARVED || state == FL_CONNECTION_GIVEN_UP;
}

// It must not be settled: what becomes of it is decided when the reader's mail comes.
static inline bool fl_connection_is_with_reader(enum fl_connection_state state)
{
    return state == FL_CONNECTION_LOOKING || state == FL_CONNECTION_COUNTING;
}

#endif
