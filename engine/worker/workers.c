// SPDX-License-Identifier: Apache-2.0
//
// All workers of an engine, and its lanes behind them.
#include <string.h>

#include "engine/ahead/collapser.h"
#include "engine/base/counter.h"
#include "engine/link/degraded.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane.h"
#include "engine/worker/worker.h"

unsigned fl_engine_workers(const struct fl_engine *engine)
{
    return engine->worker_count + (engine->lanes ? atomic_load(&engine->lanes->count) : 0);
}

struct fl_worker *fl_engine_worker(const struct fl_engine *engine, unsigned index)
{
    return index < engine->worker_count ? &engine->workers[index]
                                        : engine->lanes->lane[index - engine->worker_count];
}

bool fl_engine_replays(const struct fl_engine *engine)
{
    for (unsigned i = 0; i < fl_engine_workers(engine); i++) {
        const struct fl_shard_stats *stats = fl_engine_worker(engine, i)->shard.stats;
        if (fl_counter_get(&stats->replaying) > 0 || fl_counter_get(&stats->collapsing) > 0)
            return true;
    }
    return false;
}

// Once refused it stays so: what an engine may do is given at its start.
void fl_engine_look(struct fl_engine *engine)
{
    int error = engine->collapser ? fl_collapser_refused(engine->collapser) : 0;
    if (error)
        fl_lacks(&engine->degraded, FL_LACK_HUGE,
                 "working sets stay pages of 4 KiB, as the server may not put pages of a VM "
                 "together (%s): that takes CAP_SYS_NICE, the right to ptrace the VM's process, "
                 "and process_madvise()",
                 strerror(-error));
}

struct fl_worker *fl_worker_fewest(const struct fl_engine *engine)
{
    struct fl_worker *best = &engine->workers[0];
    for (unsigned i = 1; i < engine->worker_count; i++) {
        if (engine->workers[i].vms < best->vms)
            best = &engine->workers[i];
    }
    return best;
}
