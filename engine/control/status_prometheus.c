// SPDX-License-Identifier: Apache-2.0
#include "engine/control/status.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/base/descriptors.h"
#include "engine/control/stats.h"
#include "engine/control/status_lanes.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates.h"
#include "engine/worker/engine.h"

static void metric(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
    fprintf(out, "# HELP faultline_%s %s\n# TYPE faultline_%s %s\nfaultline_%s %" PRIu64 "\n", name,
            help, name, type, name, value);
}

static void write_faults(FILE *out, const struct fl_stats *stats)
{
    metric(out, "vms", "gauge", "VMs attached now.", stats->vms);
    metric(out, "vms_attached_total", "counter", "VMs ever attached.", stats->attached);
    metric(out, "handshakes_refused_total", "counter", "Handshakes refused.", stats->refused);
    metric(out, "faults_read_total", "counter", "Fault messages read.", stats->faults);
    metric(out, "faults_installed_total", "counter", "Faults resolved with bytes of the image.",
           stats->installed);
    metric(out, "faults_zeroed_total", "counter", "Faults resolved with zeros.", stats->zeroed);
    metric(out, "faults_poisoned_total", "counter", "Faults resolved with SIGBUS.",
           stats->poisoned);
    metric(out, "faults_duplicate_total", "counter", "Messages for a page already asked for.",
           stats->duplicates);
    metric(out, "faults_write_protect_total", "counter",
           "Messages of write protection, which clients can ask for: protection is taken away.",
           stats->write_protect);
    metric(out, "faults_minor_total", "counter",
           "Messages of minor faults, which clients can ask for: the page is mapped as it is.",
           stats->minor);
    metric(out, "faults_parked", "gauge", "Pages asked for and not there yet.", stats->parked);
    metric(out, "pages_copied_total", "counter", "4 KiB pages copied into guests.",
           stats->copied_pages);
    metric(out, "pages_zeroed_total", "counter", "4 KiB pages zeroed in guests.",
           stats->zeroed_pages);
    metric(out, "pages_removed_total", "counter", "4 KiB pages that guests gave back.",
           stats->removed_pages);
    metric(out, "pages_dropped_total", "counter",
           "4 KiB pages that were dropped without an event, and touched again: zeros.",
           stats->dropped_pages);
    metric(out, "pages_ahead_total", "counter",
           "4 KiB pages installed together with a neighbour that was asked for.",
           stats->ahead_pages);
    metric(out, "pages_ahead_unproven", "gauge", "Of them, those that VMs may not have needed.",
           stats->ahead_unproven_pages);
}

static void write_replay(FILE *out, const struct fl_engine *engine, const struct fl_stats *stats)
{
    metric(out, "replays_running", "gauge", "VMs whose working set is being streamed in.",
           stats->replaying);
    metric(out, "replays_total", "counter", "Working sets streamed in to their end.",
           stats->replays);
    metric(out, "replay_pages_total", "counter", "4 KiB pages installed by replay.",
           stats->replayed_pages);
    metric(out, "replay_late_pages_total", "counter",
           "4 KiB pages of traces that were touched before replay came to them.",
           stats->replay_late);
    metric(out, "replay_paused", "gauge", "1 while replay pauses as memory is scarce.",
           engine->memory.scarce || engine->memory.huge_scarce);
}

static void write_keeper(FILE *out, const struct fl_engine *engine, const struct fl_stats *stats)
{
    json_int_t generation = 0;
    json_int_t deaths = 0;
    json_t *news = json_loads(fl_keeper_link_news(engine->keeper_link), JSON_DECODE_ANY, NULL);
    bool keeper_link =
        json_unpack(news, "{s:I, s:I}", "generation", &generation, "deaths", &deaths) == 0;
    json_decref(news);
    metric(out, "keeper_up", "gauge", "1 if a keeper would start another engine.", keeper_link);
    metric(out, "engine_generation", "gauge", "Engines that have served under this keeper.",
           (uint64_t)generation);
    metric(out, "engine_deaths_total", "counter", "Engines that died under this keeper.",
           (uint64_t)deaths);
    fprintf(out,
            "# HELP faultline_fault_oldest_wait_seconds How long the oldest fault has been waiting "
            "for storage, at the last heartbeat.\n"
            "# TYPE faultline_fault_oldest_wait_seconds gauge\n"
            "faultline_fault_oldest_wait_seconds %.3f\n",
            (double)stats->oldest_wait_ns / (double)FL_NS_PER_S);
}

static void write_cache(FILE *out, const struct fl_stats *stats)
{
    const struct fl_cache_stats *cache = &stats->cache;
    metric(out, "cache_bytes", "gauge", "Bytes of decompressed frames.", cache->bytes);
    metric(out, "cache_memory_bytes", "gauge", "Memory taken for frames, free places in it too.",
           cache->memory);
    metric(out, "cache_limit_bytes", "gauge", "Their bound.", cache->limit);
    metric(out, "cache_frames", "gauge", "Decompressed frames.", cache->frames);
    metric(out, "cache_hits_total", "counter", "Faults whose frames were there.", stats->hits);
    metric(out, "cache_misses_total", "counter", "Faults that had to wait for frames.",
           stats->misses);
    metric(out, "cache_evictions_total", "counter", "Frames evicted.", cache->evictions);
    metric(out, "frame_reads_total", "counter", "Frames read, retries counted.", cache->reads);
    metric(out, "frame_read_errors_total", "counter", "Reads that failed.", cache->read_errors);
    metric(out, "frames_failed_total", "counter", "Frames given up after all retries.",
           cache->failed);
    metric(out, "ahead_waiting_bytes", "gauge", "Asked for ahead of use and not used yet.",
           cache->ahead_waiting);
    metric(out, "ahead_extents_total", "counter", "Reads of several frames at once.",
           cache->ahead_extents);
    metric(out, "ahead_bytes_total", "counter", "Bytes that these read.", cache->ahead_bytes);
    metric(out, "ahead_frames_total", "counter", "Frames that came with them.",
           cache->ahead_frames);
    metric(out, "ahead_errors_total", "counter",
           "Such reads that failed, and frames in them that were damaged.", cache->ahead_errors);
    metric(out, "ahead_promoted_total", "counter",
           "Frames asked for ahead that a fault wanted before they were there.", cache->promoted);
    metric(out, "memory_allocated_bytes", "gauge", "Bytes allocated, as jemalloc counts.",
           stats->allocated_bytes);
    metric(out, "memory_resident_bytes", "gauge", "Resident set size.", stats->resident_bytes);
}

static void write_shortage(FILE *out, const struct fl_stats *stats)
{
    const struct fl_huge_pool *pool = &stats->pool;
    metric(out, "vms_lacking_memory", "gauge", "VMs for whose pages there is no memory now.",
           stats->lacking);
    metric(out, "shortage_huge_pages_total", "counter", "Fills that found no page of 2 MiB.",
           stats->short_huge);
    metric(out, "shortage_memory_total", "counter",
           "Fills that found no memory for a page of 4 KiB.", stats->short_memory);
    metric(out, "found_missing_total", "counter",
           "Looks at a VM before its release that found pages absent, to be filled again.",
           stats->found_missing);
    metric(out, "huge_pages", "gauge", "Pages of 2 MiB in the host's pool.", pool->total);
    metric(out, "huge_pages_free", "gauge", "Of them, those that are free.", pool->free);
    metric(out, "huge_pages_reserved", "gauge", "Of the free ones, those that are promised.",
           pool->reserved);
    metric(out, "huge_pages_promised", "gauge", "Pages of 2 MiB that attached VMs will need.",
           stats->promised);
    metric(out, "huge_pages_surplus", "gauge", "Pages of 2 MiB beyond the pool's own number.",
           pool->surplus);
}

static void write_ends(FILE *out, const struct fl_ends *ends)
{
    metric(out, "vms_released_total", "counter", "VMs whose memory was completed and let go.",
           ends->released);
    metric(out, "vms_released_poisoned_total", "counter", "Of them, those with poisoned pages.",
           ends->poisoned);
    metric(out, "vms_killed_total", "counter", "VMs that were killed.", ends->killed);
}

static void write_lanes(FILE *out, const struct fl_engine *engine)
{
    struct fl_lanes_now now = fl_lanes_now(engine);
    metric(out, "lane_vms", "gauge", "VMs with a thread of their own, as they make it wait.",
           now.vms);
    metric(out, "lane_blocked_vms", "gauge", "Of them, those whose thread waits in the kernel.",
           now.blocked);
    metric(out, "lane_taken_total", "counter",
           "Times that a worker was held up by one VM, and the others were taken from it.",
           now.taken);
    metric(out, "lane_refused_total", "counter", "Times that no thread was left for that.",
           now.refused);
}

static void write_templates(FILE *out, const struct fl_engine *engine)
{
    struct fl_templates_stats stats = fl_templates_stats(engine->templates);
    metric(out, "templates", "gauge", "Templates.", stats.templates);
    metric(out, "template_bytes", "gauge", "Bytes that are filled in templates.", stats.bytes);
    metric(out, "template_limit_bytes", "gauge", "Their bound.", stats.limit);
    metric(out, "template_clones", "gauge", "VMs that map a template.", stats.clones);
    metric(out, "template_private_pages", "gauge",
           "Pages of templates there are that VMs got privately for want of room.", stats.refused);
    metric(out, "template_repaired_pages", "gauge",
           "Pages of templates there are that a client had made zero.", stats.repaired);
}

static void write_latency(FILE *out, const struct fl_stats *stats)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 1};
    fputs("# HELP faultline_fault_seconds From the reading of a fault to its page being there.\n"
          "# TYPE faultline_fault_seconds summary\n",
          out);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
        fprintf(out, "faultline_fault_seconds{quantile=\"%g\"} %.9f\n", shares[i],
                (double)fl_histogram_quantile(&stats->latency_ns, shares[i]) / (double)FL_NS_PER_S);
    fprintf(out, "faultline_fault_seconds_sum %.9f\nfaultline_fault_seconds_count %" PRIu64 "\n",
            (double)fl_counter_get(&stats->latency_ns.sum) / (double)FL_NS_PER_S,
            fl_histogram_total(&stats->latency_ns));
}

char *fl_status_prometheus(struct fl_engine *engine, bool draining)
{
    char *text = NULL;
    size_t size = 0;
    struct fl_stats *stats = malloc(sizeof(*stats));
    FILE *out = stats ? open_memstream(&text, &size) : NULL;
    if (!out) {
        free(stats);
        return NULL;
    }
    fl_stats_collect(engine, stats);
    metric(out, "draining", "gauge", "1 if no new VM is taken.", draining);
    fl_degraded_metrics(engine, out);
    metric(out, "descriptors", "gauge", "Open file descriptors of the engine.",
           fl_descriptors_used());
    metric(out, "descriptors_limit", "gauge", "Their limit, that of the keeper, too.",
           fl_descriptors_limit());
    write_faults(out, stats);
    write_replay(out, engine, stats);
    write_keeper(out, engine, stats);
    write_cache(out, stats);
    write_shortage(out, stats);
    write_ends(out, &engine->ends);
    write_templates(out, engine);
    write_lanes(out, engine);
    write_latency(out, stats);
    free(stats);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
