// SPDX-License-Identifier: Apache-2.0
//
// The table of a connection's moves: what must never be allowed, and that each state is of use.
#include <criterion/criterion.h>
#include <signal.h>

#include "engine/accept/connection_state.h"

static bool may(unsigned from, unsigned to)
{
    return fl_states_may(&fl_connection_states, from, to);
}

TestSuite(connection_state, .timeout = 30);

// Freeing one that a reader has would be a use after free in the reader.
Test(connection_state, reader_has_it)
{
    for (unsigned from = 0; from < FL_CONNECTION_STATES; from++) {
        bool with_reader = fl_connection_is_with_reader((enum fl_connection_state)from);
        cr_assert_eq(may(from, FL_CONNECTION_SETTLED),
                     !with_reader && from != FL_CONNECTION_SETTLED, "%s",
                     fl_connection_states.name[from]);
        if (with_reader)
            cr_assert_eq(fl_connection_states.follow[from], FL_TO(FL_CONNECTION_DECIDING));
    }
}

// Its handshake was taken in once: it is not read again.
Test(connection_state, no_way_back)
{
    for (unsigned from = FL_CONNECTION_LOOKING; from < FL_CONNECTION_STATES; from++) {
        for (unsigned to = 0; to <= FL_CONNECTION_GIVEN_UP; to++)
            cr_assert_not(may(from, to), "%s to %s", fl_connection_states.name[from],
                          fl_connection_states.name[to]);
    }
}

static void walk(unsigned from, bool seen[FL_CONNECTION_STATES])
{
    seen[from] = true;
    for (unsigned to = 0; to < FL_CONNECTION_STATES; to++) {
        if (may(from, to) && !seen[to])
            walk(to, seen);
    }
}

Test(connection_state, each_is_reached_and_ends)
{
    bool from_new[FL_CONNECTION_STATES] = {false};
    walk(FL_CONNECTION_NEW, from_new);
    for (unsigned state = 0; state < FL_CONNECTION_STATES; state++) {
        bool from_here[FL_CONNECTION_STATES] = {false};
        walk(state, from_here);
        cr_assert(from_new[state], "%s", fl_connection_states.name[state]);
        cr_assert(from_here[FL_CONNECTION_SETTLED], "%s", fl_connection_states.name[state]);
        cr_assert_not_null(fl_connection_states.name[state]);
    }
    cr_assert_eq(fl_connection_states.follow[FL_CONNECTION_SETTLED], 0);
}

// The time of one whose handshake is complete does not run out.
Test(connection_state, deadlines)
{
    for (unsigned state = 0; state < FL_CONNECTION_STATES; state++)
        cr_assert_eq(fl_connection_has_deadline((enum fl_connection_state)state),
                     state == FL_CONNECTION_READING || state == FL_CONNECTION_STARVED);
}

Test(connection_state, out_of_range)
{
    cr_assert_not(may(FL_CONNECTION_STATES, FL_CONNECTION_READING));
    cr_assert_not(may(FL_CONNECTION_NEW, FL_CONNECTION_STATES));
}

#ifdef FAULTLINE_POINTS
Test(connection_state, refused_move_aborts, .signal = SIGABRT)
{
    fl_states_check(&fl_connection_states, FL_CONNECTION_LOOKING, FL_CONNECTION_SETTLED);
}
#else
Test(connection_state, refused_move_is_false)
{
    cr_assert_not(
        fl_states_check(&fl_connection_states, FL_CONNECTION_LOOKING, FL_CONNECTION_SETTLED));
}
#endif
