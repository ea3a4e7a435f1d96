// SPDX-License-Identifier: Apache-2.0
#include "engine/base/states.h"

#include <stdlib.h>

#include "engine/base/log.h"

bool fl_states_may(const struct fl_states *states, unsigned from, unsigned to)
{
    return from < states->count && to < states->count && (states->follow[from] & FL_TO(to)) != 0;
}

static const char *name_of(const struct fl_states *states, unsigned state)
{
    return state < states->count ? states->name[state] : "?";
}

bool fl_states_check(const struct fl_states *states, unsigned from, unsigned to)
{
    if (fl_states_may(states, from, to))
        return true;
    fl_log(FL_LOG_ERROR, "event=state_bug object=%s from=%s to=%s", states->object,
           name_of(states, from), name_of(states, to));
#ifdef FAULTLINE_POINTS
    fl_log_flush();
    abort();
#else
    return false;
#endif
}
