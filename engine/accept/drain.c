// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/drain.h"

#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/link/channel.h"
#include "engine/link/keeper_link.h"

// Every change of the server's state.
static bool move_service(struct fl_acceptor *acceptor, enum fl_service_state to)
{
    if (!fl_states_check(&fl_service_states, acceptor->state, to))
        return false;
    acceptor->state = to;
    return true;
}

static enum fl_service_state state_of_mode(uint64_t mode)
{
    return mode & FL_MODE_RELEASING  ? FL_SERVICE_RELEASING
           : mode & FL_MODE_REFUSING ? FL_SERVICE_REFUSING
                                     : FL_SERVICE_OPEN;
}

bool fl_drain_begin(struct fl_acceptor *acceptor, uint64_t mode)
{
    bool cancelled = acceptor->state == FL_SERVICE_CANCELLED;
    return move_service(acceptor, cancelled ? FL_SERVICE_STOPPING : state_of_mode(mode));
}

void fl_drain(struct fl_acceptor *acceptor, enum fl_service_state to)
{
    struct fl_engine *engine = acceptor->engine;
    enum fl_service_state from = acceptor->state;
    bool release = fl_service_releases(to) && !fl_service_releases(from);
    if (release || !fl_service_refuses(from))
        fl_log(FL_LOG_INFO, "event=draining vms=%u release=%s", engine->vms.count,
               release ? "yes" : "no");
    if (release && !engine->options.populate)
        acceptor->ends_before = engine->counts->ends;
    if (from < to)
        move_service(acceptor, to);
    fl_drain_keep_mode(acceptor);
    fl_listeners_close(acceptor);
    FL_CRASH_POINT("draining");
}

void fl_drain_end(struct fl_acceptor *acceptor)
{
    bool begun = fl_service_has_begun(acceptor->state);
    if (!fl_service_ends(acceptor->state))
        move_service(acceptor, begun ? FL_SERVICE_STOPPING : FL_SERVICE_CANCELLED);
}

void fl_drain_keep_mode(const struct fl_acceptor *acceptor)
{
    uint64_t mode = (fl_service_refuses(acceptor->state) ? FL_MODE_REFUSING : 0U) |
                    (fl_service_releases(acceptor->state) ? FL_MODE_RELEASING : 0U);
    if (mode)
        fl_keeper_link_put_mode(acceptor->engine->keeper_link, mode);
}
