// SPDX-License-Identifier: Apache-2.0
//
// The start and the end of an engine.
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/ahead/collapser.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/io_pool.h"
#include "engine/base/log.h"
#include "engine/cache/frame_cache.h"
#include "engine/link/death_watch.h"
#include "engine/link/keeper_link.h"
#include "engine/link/ledger.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane.h"
#include "engine/worker/limit_watch.h"
#include "engine/worker/worker.h"

enum { READERS_MIN = 4 };

static int engine_start_workers(struct fl_engine *engine)
{
    engine->workers = calloc(engine->options.workers, sizeof(*engine->workers));
    if (!engine->workers)
        return -ENOMEM;
    int error = 0;
    engine->collapser = fl_collapser_new(engine->options.nice);
    if (!engine->collapser)
        error = -ENOMEM;
    for (unsigned i = 0; i < engine->options.workers && !error; i++) {
        fl_worker_prepare(&engine->workers[i], engine, i);
        error = fl_worker_start(&engine->workers[i]);
        engine->worker_count += !error;
    }
    if (!error)
        error = fl_lanes_start(engine);
    if (!error)
        error = fl_limit_watch_start(engine, &engine->limits);
    for (unsigned i = 0; i < fl_engine_workers(engine) && !error; i++) {
        while (sem_wait(&engine->begun) != 0) {
        }
    }
    return error;
}

// The control thread is the first of those whose lives are seen.
static int engine_begin_life(struct fl_engine *engine)
{
    int error = fl_life_table_new(&engine->life_fd, &engine->life);
    if (!error)
        fl_life_table_join(engine->life, 0);
    return error;
}

static void engine_owner_found(void *control, const struct fl_vm *vm, int pidfd)
{
    const struct fl_engine *engine = control;
    fl_keeper_link_put_vm_slot(engine->keeper_link, vm->id, FL_VM_PIDFD, pidfd, 0);
}

static int engine_start_parts(struct fl_engine *engine)
{
    int error = fl_close_thread_start();
    if (!error)
        error = engine_begin_life(engine);
    if (!error)
        error = fl_mailbox_init(&engine->control);
    if (error)
        return error;
    error = fl_vms_init(&engine->vms);
    if (!error)
        error = fl_io_pool_start(engine->options.readers, &engine->io_pool);
    if (!error)
        error = fl_cache_new(engine->options.cache_bytes, engine->options.read_retries,
                             engine->io_pool, &engine->cache);
    if (!error)
        fl_cache_count_in(engine->cache, fl_ledger_block(engine->ledger, FL_LEDGER_CACHE, 0));
    fl_image_counting_init(&engine->image_counting,
                           fl_ledger_block(engine->ledger, FL_LEDGER_IMAGES, 0), &engine->vms);
    engine->killer = (struct fl_killer){.vms = &engine->vms,
                                        .io_pool = engine->io_pool,
                                        .control = &engine->control,
                                        .found = engine_owner_found};
    return error ? error : engine_start_workers(engine);
}

int fl_engine_start(const struct fl_engine_options *options, const struct fl_engine_ops *ops,
                    struct fl_ledger *ledger, struct fl_engine **ret_engine)
{
    struct fl_engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return -ENOMEM;
    engine->options = *options;
    engine->ops = ops;
    engine->ledger = ledger;
    engine->counts = fl_ledger_block(ledger, FL_LEDGER_CONTROL, 0);
    if (sched_getaffinity(0, sizeof(engine->cpus), &engine->cpus) != 0)
        CPU_ZERO(&engine->cpus);
    unsigned cores = CPU_COUNT(&engine->cpus) > 0 ? (unsigned)CPU_COUNT(&engine->cpus) : 1;
    if (engine->options.workers == 0)
        engine->options.workers = cores;
    if (engine->options.readers == 0)
        engine->options.readers = cores > READERS_MIN ? cores : READERS_MIN;
    fl_recording_orders_init(&engine->recordings);
    fl_histories_init(&engine->histories, options->history);
    engine->memory.reserve = options->replay_reserve;
    engine->started_ns = fl_now();
    engine->control.event_fd = -1;
    engine->life_fd = -1;
    sem_init(&engine->begun, 0, 0);
    rcu_register_thread();
    int error = engine_start_parts(engine);
    if (error) {
        fl_engine_stop(engine);
        return error;
    }
    *ret_engine = engine;
    return 0;
}

void fl_engine_serves(struct fl_engine *engine)
{
    uint64_t bytes = engine->options.prealloc_bytes;
    if (bytes > 0 && fl_cache_prepare(engine->cache, bytes, engine->options.replay_reserve) != 0)
        fl_log(FL_LOG_ERROR, "event=prealloc_failed reason=\"the host is out of memory: the cache "
                             "allocates it as needed\"");
}

// The read-ahead ends before the readers that it sends to, they and the collapser before the
// workers whose mailboxes they deliver to, and the cache after both.
void fl_engine_stop(struct fl_engine *engine)
{
    fl_rcu_offline();
    if (engine->cache)
        fl_cache_stop(engine->cache);
    if (engine->io_pool)
        fl_io_pool_stop(engine->io_pool);
    fl_collapser_free(engine->collapser);
    fl_limit_watch_stop(engine->limits);
    fl_lanes_end_watch(engine->lanes);
    fl_workers_halt(engine, false);
    for (unsigned i = 0; i < engine->worker_count; i++)
        fl_worker_free(&engine->workers[i]);
    fl_lanes_free(engine->lanes);
    fl_rcu_online();
    // Before all that mail is embedded in.
    if (engine->control.event_fd >= 0)
        fl_mailbox_fini(&engine->control);
    if (engine->cache)
        fl_cache_free(engine->cache);
    fl_recording_orders_fini(&engine->recordings);
    fl_histories_fini(&engine->histories);
    free(engine->workers);
    rcu_barrier();
    fl_vms_fini(&engine->vms);
    if (engine->life_fd >= 0)
        close(engine->life_fd);
    sem_destroy(&engine->begun);
    rcu_unregister_thread();
    free(engine);
}
