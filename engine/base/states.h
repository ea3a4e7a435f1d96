// SPDX-License-Identifier: Apache-2.0
//
// The states of an object as an enum, and a table of the moves between them. The object's owner
// changes the state in one function, which asks here first. Any thread.
#ifndef FAULTLINE_BASE_STATES_H
#define FAULTLINE_BASE_STATES_H

#include <stdbool.h>
#include <stdint.h>

// A state in the set of those that may follow another.
#define FL_TO(state) (UINT32_C(1) << (state))

struct fl_states {
    const char *object;      // what has the states, for the log
    const char *const *name; // [count]
    const uint32_t *follow;  // [count]: FL_TO() of each state that may follow
    unsigned count;          // at most 32
};

// True if the move is in the table.
bool fl_states_may(const struct fl_states *states, unsigned from, unsigned to);
// The same for a move that is about to be made. One that is not in the table is a bug: it is
// logged, and the object stays as it is (false); builds with crash points, which tests use, abort.
bool fl_states_check(const struct fl_states *states, unsigned from, unsigned to);

#endif
