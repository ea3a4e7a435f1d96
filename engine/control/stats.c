// SPDX-License-Identifier: Apache-2.0
#include "engine/control/stats.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/accept/admission.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

// Weak: jemalloc is linked into the command only, and not into its sanitized builds.
int mallctl(const char *name, void *old, size_t *old_size, void *new, size_t new_size)
    __attribute__((weak));

static uint64_t allocated(void)
{
    uint64_t epoch = 1;
    size_t bytes = 0;
    size_t size = sizeof(epoch);
    if (!mallctl)
        return 0;
    mallctl("epoch", &epoch, &size, &epoch, size); // refreshes the statistics
    size = sizeof(bytes);
    return mallctl("stats.allocated", &bytes, &size, NULL, 0) == 0 ? bytes : 0;
}

static uint64_t resident(void)
{
    unsigned long long total = 0;
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &total, &pages) != 2) // NOLINT(cert-err34-c)
        pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_worker(struct fl_stats *stats, const struct fl_shard_stats *worker)
{
    stats->faults += fl_counter_get(&worker->faults);
    stats->installed += fl_counter_get(&worker->installed);
    stats->zeroed += fl_counter_get(&worker->zeroed);
    stats->poisoned += fl_counter_get(&worker->poisoned);
    stats->duplicates += fl_counter_get(&worker->duplicates);
    stats->write_protect += fl_counter_get(&worker->write_protect);
    stats->minor += fl_counter_get(&worker->minor);
    stats->parked += fl_counter_get(&worker->parked);
    stats->copied_pages += fl_counter_get(&worker->copied_units);
    stats->zeroed_pages += fl_counter_get(&worker->zeroed_units);
    stats->removed_pages += fl_counter_get(&worker->removed_units);
    stats->dropped_pages += fl_counter_get(&worker->dropped_units);
    stats->ahead_pages += fl_counter_get(&worker->ahead_units);
    stats->hits += fl_counter_get(&worker->hits);
    stats->misses += fl_counter_get(&worker->misses);
    stats->replaying += fl_counter_get(&worker->replaying);
    stats->replays += fl_counter_get(&worker->replays);
    stats->replayed_pages += fl_counter_get(&worker->replayed_units);
    stats->replay_late += fl_counter_get(&worker->replay_late);
    stats->short_huge += fl_counter_get(&worker->short_huge);
    stats->short_memory += fl_counter_get(&worker->short_memory);
    stats->found_missing += fl_counter_get(&worker->found_missing);
    fl_histogram_merge(&stats->latency_ns, &worker->latency_ns);
}

static void count_lacking(void *arg, const struct fl_vm *vm)
{
    *(unsigned *)arg += atomic_load(&vm->shortage.since_ns) != 0;
}

void fl_stats_collect(struct fl_engine *engine, struct fl_stats *ret_stats)
{
    memset(ret_stats, 0, sizeof(*ret_stats));
    ret_stats->workers = engine->worker_count;
    ret_stats->vms = engine->vms.count;
    ret_stats->attached = engine->attached;
    ret_stats->refused = engine->refused;
    ret_stats->oldest_wait_ns = engine->oldest_wait_ns;
    for (unsigned i = 0; i < fl_engine_workers(engine); i++)
        add_worker(ret_stats, &fl_engine_worker(engine, i)->shard.stats);
    fl_vms_each(&engine->vms, count_lacking, &ret_stats->lacking);
    ret_stats->pool = fl_huge_pool_read();
    ret_stats->promised = fl_admission_promised(engine);
    ret_stats->ahead_unproven_pages = atomic_load(&engine->prefetch_unproven);
    ret_stats->cache = fl_cache_stats(engine->cache);
    ret_stats->allocated_bytes = allocated();
    ret_stats->resident_bytes = resident();
}
