// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/drain.h"

#include <stdint.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/link/channel.h"
#include "engine/link/keeper_link.h"

void fl_drain(struct fl_acceptor *acceptor, bool release)
{
    struct fl_engine *engine = acceptor->engine;
    if (!acceptor->refusing || (release && !acceptor->releasing))
        fl_log(FL_LOG_INFO, "event=draining vms=%u release=%s", engine->vms.count,
               release ? "yes" : "no");
    if (release && !acceptor->releasing && !engine->options.populate)
        acceptor->ends_before = engine->ends;
    acceptor->refusing = true;
    acceptor->releasing = acceptor->releasing || release;
    fl_drain_keep_mode(acceptor);
    fl_listeners_close(acceptor);
    FL_CRASH_POINT("draining");
}

void fl_drain_keep_mode(const struct fl_acceptor *acceptor)
{
    uint64_t mode = (acceptor->refusing ? FL_MODE_REFUSING : 0U) |
                    (acceptor->releasing ? FL_MODE_RELEASING : 0U);
    if (mode)
        fl_keeper_link_put_mode(acceptor->engine->keeper_link, mode);
}
