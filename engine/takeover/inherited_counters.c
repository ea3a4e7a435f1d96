// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Every engine has a ledger of its own, and a record of it at the keeper from
// the moment on in which it is told to serve, with a number above those of its predecessors. (Not
// before: to find a keeper dead would be to lose what that has sent.) Theirs stay beside
// it until all that they have is in ours. Then ours says so (fl_ledger_includes), in a single
// store, and they are dropped. An engine that dies before that store leaves both: its successor
// adds them up. One that dies behind it leaves a ledger that says which others are not to be added
// once more.
#include "engine/takeover/inherited_counters.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/link/keeper_link.h"
#include "engine/link/ledger.h"
#include "engine/worker/engine.h"

void fl_inherited_counters_init(struct fl_inherited_counters *counters, struct fl_engine *engine)
{
    *counters = (struct fl_inherited_counters){.engine = engine};
}

void fl_inherited_counters_add(struct fl_inherited_counters *counters, uint64_t record, int *fd)
{
    if (record > counters->last)
        counters->last = record;
    if (*fd < 0 || counters->count == FL_LEDGERS_MOST) // of so many engines that died at once
        return;
    counters->record[counters->count] = record;
    counters->fd[counters->count++] = *fd;
    *fd = -1;
}

void fl_inherited_counters_keep(struct fl_inherited_counters *counters, bool again)
{
    int fd = fl_ledger_fd(counters->engine->ledger);
    if (fd < 0 || (counters->own != 0 && !again))
        return;
    if (counters->own == 0)
        counters->own = counters->last + 1;
    fl_keeper_link_put_counters(counters->engine->keeper_link, counters->own, fd);
}

static void carry_one(struct fl_inherited_counters *counters, unsigned index, uint64_t included)
{
    int error = counters->record[index] > included
                    ? fl_ledger_carry(counters->engine->ledger, counters->fd[index])
                    : 0;
    if (error)
        fl_log(FL_LOG_WARNING,
               "event=counters_lost record=%" PRIu64
               " reason=\"the counters of an engine before cannot be read: %s\"",
               counters->record[index], strerror(-error));
    FL_CRASH_POINT("counters_carried");
}

// One that we could not have the keeper hold stands for ours, too.
static void drop_all(struct fl_inherited_counters *counters)
{
    for (unsigned i = 0; i < counters->count; i++) {
        if (counters->own != 0)
            fl_keeper_link_drop(counters->engine->keeper_link, FL_RECORD_COUNTERS,
                                counters->record[i]);
        close(counters->fd[i]);
    }
    counters->count = 0;
}

bool fl_inherited_counters_carry(struct fl_inherited_counters *counters)
{
    uint64_t included = 0;
    bool any = counters->count > 0;
    for (unsigned i = 0; i < counters->count; i++) {
        uint64_t its = fl_ledger_included(counters->fd[i]);
        included = its > included ? its : included;
    }
    for (unsigned i = 0; i < counters->count; i++)
        carry_one(counters, i, included);
    if (any)
        fl_ledger_includes(counters->engine->ledger, counters->last);
    FL_CRASH_POINT("counters_included");
    drop_all(counters);
    return any;
}
