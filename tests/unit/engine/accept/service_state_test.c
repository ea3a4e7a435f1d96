// SPDX-License-Identifier: Apache-2.0
//
// The table of a server's moves: it never takes back what it has refused.
#include <criterion/criterion.h>

#include "engine/accept/service_state.h"

static bool may(unsigned from, unsigned to)
{
    return fl_states_may(&fl_service_states, from, to);
}

TestSuite(service_state, .timeout = 30);

Test(service_state, takes_nothing_back)
{
    for (unsigned from = 0; from < FL_SERVICE_STATES; from++) {
        for (unsigned to = 0; to < FL_SERVICE_STATES; to++) {
            if (!may(from, to))
                continue;
            enum fl_service_state a = (enum fl_service_state)from;
            enum fl_service_state b = (enum fl_service_state)to;
            const char *name = fl_service_states.name[from];
            cr_assert(!fl_service_has_begun(a) || fl_service_has_begun(b), "%s", name);
            cr_assert(!fl_service_refuses(a) || fl_service_refuses(b), "%s", name);
            cr_assert(!fl_service_releases(a) || fl_service_releases(b), "%s", name);
            cr_assert(!fl_service_ends(a) || fl_service_ends(b), "%s", name);
        }
    }
}

// SIGTERM stops a server in any state, and a standby in one of its own.
Test(service_state, can_always_end)
{
    for (unsigned from = FL_SERVICE_STANDBY; from < FL_SERVICE_STOPPING; from++) {
        bool begun = fl_service_has_begun((enum fl_service_state)from);
        cr_assert_eq(may(from, FL_SERVICE_STOPPING), begun, "%s", fl_service_states.name[from]);
        cr_assert_eq(may(from, FL_SERVICE_CANCELLED), !begun, "%s", fl_service_states.name[from]);
    }
    cr_assert_eq(fl_service_states.follow[FL_SERVICE_STOPPING], 0);
    cr_assert(may(FL_SERVICE_CANCELLED, FL_SERVICE_STOPPING));
}

// A successor begins where its predecessor was.
Test(service_state, standby_begins_anywhere)
{
    for (unsigned to = FL_SERVICE_OPEN; to <= FL_SERVICE_RELEASING; to++)
        cr_assert(may(FL_SERVICE_STANDBY, to), "%s", fl_service_states.name[to]);
}
