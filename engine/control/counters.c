// SPDX-License-Identifier: Apache-2.0
#include "engine/control/counters.h"

#include <string.h>

#include "engine/base/counter.h"
#include "engine/control/stats.h"

#define SHAPE(field)                                                                               \
    _Generic(((struct fl_stats *)0)->field, bool                                                   \
             : FL_SHAPE_BOOL, unsigned                                                             \
             : FL_SHAPE_UINT, uint64_t                                                             \
             : FL_SHAPE_U64)
#define ROW(kind_, shape_, field, metric_, json_, help_)                                           \
    {                                                                                              \
        .kind = kind_, .shape = shape_, .metric = metric_, .json = json_, .help = help_,           \
        .lives = #field, .offset = offsetof(struct fl_stats, field)                                \
    }
#define COUNTER(field, metric, json, help)                                                         \
    ROW(FL_KIND_COUNTER, SHAPE(field), field, metric, json, help)
#define GAUGE(field, metric, json, help) ROW(FL_KIND_GAUGE, SHAPE(field), field, metric, json, help)

// clang-format off
const struct fl_counter_row fl_counter_rows[] = {
    GAUGE(engine.draining, "draining", "draining", "1 if no new VM is taken."),
    GAUGE(memory.descriptors, "descriptors", "descriptors.used", "Open file descriptors of the engine."),
    GAUGE(memory.descriptors_limit, "descriptors_limit", "descriptors.limit",
          "The limit of open file descriptors, of the engine and of the keeper."),
    GAUGE(memory.allocated, "memory_allocated_bytes", "memory.allocated", "Bytes allocated, as jemalloc counts them."),

    ROW(FL_KIND_COUNTER, FL_SHAPE_NS, engine_process.cpu_ns, "process_cpu_seconds_total", NULL,
        "CPU time of the engine, user and system; it begins anew with each engine."),
    GAUGE(engine_process.resident, "process_resident_memory_bytes", "memory.resident",
          "Resident memory of the engine in bytes."),
    GAUGE(engine_process.virtual, "process_virtual_memory_bytes", NULL, "Virtual memory of the engine in bytes."),
    GAUGE(engine_process.descriptors, "process_open_fds", NULL, "Open file descriptors of the engine."),
    GAUGE(engine_process.limit, "process_max_fds", NULL, "The limit of open file descriptors of the engine."),
    ROW(FL_KIND_GAUGE, FL_SHAPE_NS, engine_process.started_ns, "process_start_time_seconds", NULL,
        "When the engine was started, in seconds since 1970."),
    ROW(FL_KIND_COUNTER, FL_SHAPE_NS, keeper_process.cpu_ns, "keeper_process_cpu_seconds_total", NULL,
        "CPU time of the keeper, user and system."),
    GAUGE(keeper_process.resident, "keeper_process_resident_memory_bytes", NULL,
          "Resident memory of the keeper in bytes."),
    GAUGE(keeper_process.virtual, "keeper_process_virtual_memory_bytes", NULL,
          "Virtual memory of the keeper in bytes."),
    GAUGE(keeper_process.descriptors, "keeper_process_open_fds", NULL, "Open file descriptors of the keeper."),
    GAUGE(keeper_process.limit, "keeper_process_max_fds", NULL,
          "The limit of open file descriptors of the keeper."),
    ROW(FL_KIND_GAUGE, FL_SHAPE_NS, keeper_process.started_ns, "keeper_process_start_time_seconds", NULL,
        "When the keeper was started, in seconds since 1970."),

    GAUGE(store.bytes, "store_bytes", "store.bytes", "Bytes of the disk that the store's files take."),
    GAUGE(store.free, "store_free_bytes", "store.free", "Free bytes of the file system that the store is on."),
    GAUGE(store.size, "store_size_bytes", "store.size", "Bytes of the file system that the store is on."),
    ROW(FL_KIND_GAUGE, FL_SHAPE_NS, store.age_ns, "store_look_age_seconds", "store.age_ms",
        "Since the store's bytes were looked at: storage that hangs makes it grow."),

    GAUGE(engine.workers, "workers", "workers", "Threads that serve faults, without lanes."),
    GAUGE(engine.vms, "vms", "vms", "VMs attached now."),
    COUNTER(engine.attached, "vms_attached_total", "attached", "VMs attached."),
    COUNTER(engine.refused, "handshakes_refused_total", "refused", "Handshakes refused."),
    COUNTER(engine.unowned, "handshakes_unowned_total", "unowned",
            "Handshakes for memory of no process that is known: such a VM cannot be killed, only poisoned."),
    COUNTER(engine.refused_calls, "system_calls_refused_total", "refused_calls",
            "System calls that are not on the engine's list and were refused: please report them."),
    COUNTER(ends.released, "vms_released_total", "ended.released", "VMs whose memory was completed and let go."),
    COUNTER(ends.poisoned, "vms_released_poisoned_total", "ended.poisoned", "Released VMs that had poisoned pages."),
    COUNTER(ends.poisoned_pages, "vms_released_poisoned_pages_total", "ended.poisoned_pages",
            "Poisoned pages of 4 KiB that released VMs had."),
    COUNTER(ends.killed, "vms_killed_total", "ended.killed", "VMs that were killed."),

    COUNTER(workers.faults, "faults_read_total", "faults.read", "Fault messages read."),
    COUNTER(workers.installed, "faults_installed_total", "faults.installed", "Faults resolved with bytes of the image."),
    COUNTER(workers.zeroed, "faults_zeroed_total", "faults.zeroed", "Faults resolved with zeros."),
    COUNTER(workers.poisoned, "faults_poisoned_total", "faults.poisoned", "Faults resolved with SIGBUS."),
    COUNTER(workers.duplicates, "faults_duplicate_total", "faults.duplicates",
            "Fault messages for a page that was already asked for."),
    COUNTER(workers.write_protect, "faults_write_protect_total", "faults.write_protect",
            "Messages of write protection, which clients can ask for: the protection is taken away."),
    COUNTER(workers.minor, "faults_minor_total", "faults.minor",
            "Messages of minor faults, which clients can ask for: the page is mapped as it is."),
    GAUGE(workers.parked, "faults_parked", "faults.parked", "Pages asked for and not there yet."),
    ROW(FL_KIND_GAUGE, FL_SHAPE_NS, engine.oldest_ns, "oldest_fault_seconds", "faults.oldest_wait_ms",
        "How long the oldest fault has waited that has no answer yet, whatever it waits for; 0 if there is none."),

    COUNTER(workers.copied_units, "pages_copied_total", "pages.copied", "Pages of 4 KiB copied into guests."),
    COUNTER(workers.zeroed_units, "pages_zeroed_total", "pages.zeroed", "Pages of 4 KiB zeroed in guests."),
    COUNTER(workers.removed_units, "pages_removed_total", "pages.removed", "Pages of 4 KiB that guests gave back."),
    COUNTER(workers.dropped_units, "pages_dropped_total", "pages.dropped",
            "Pages of 4 KiB that were dropped without an event and touched again: they read as zeros."),
    COUNTER(workers.ahead_units, "pages_ahead_total", "pages.ahead",
            "Pages of 4 KiB installed together with a neighbour that was asked for."),
    COUNTER(workers.zero_ahead_units, "pages_zeroed_ahead_total", "pages.zeroed_ahead",
            "Pages of 4 KiB zeroed together with one that was asked for: they take no memory until they are written to."),
    COUNTER(workers.zero_used_units, "pages_zeroed_ahead_used_total", "pages.zeroed_ahead_used",
            "Of these, pages that were used later, as far as that is known."),
    COUNTER(workers.first_pages, "first_pages_total", "pages.first",
            "Pages of 4 KiB installed so that a first write in an empty range of 2 MiB is as fast as any."),
    GAUGE(engine.unproven, "pages_ahead_unproven", "pages.ahead_unproven",
          "Pages installed ahead that VMs may not have needed."),

    GAUGE(cache.bytes, "cache_bytes", "cache.bytes", "Bytes of decompressed frames."),
    GAUGE(cache.memory, "cache_memory_bytes", "cache.memory", "Memory taken for frames, with the free places in it."),
    GAUGE(cache.limit, "cache_limit_bytes", "cache.limit", "The bound of the decompressed frames in bytes."),
    GAUGE(cache.frames, "cache_frames", "cache.frames", "Decompressed frames."),
    COUNTER(workers.hits, "cache_hits_total", "cache.hits", "Faults whose frames were in the cache."),
    COUNTER(workers.misses, "cache_misses_total", "cache.misses", "Faults that had to wait for frames."),
    COUNTER(cache.evictions, "cache_evictions_total", "cache.evictions", "Frames evicted."),
    COUNTER(cache.taken, "cache_taken_total", "cache.taken",
            "Frames that did not stay, as one VM alone was filled with them."),
    COUNTER(cache.reads, "frame_reads_total", "cache.reads", "Reads of frames, with those that were repeated."),
    COUNTER(cache.read_errors, "frame_read_errors_total", "cache.read_errors", "Reads of frames that failed."),
    COUNTER(cache.failed, "frames_failed_total", "cache.failed", "Frames given up after all attempts."),

    GAUGE(cache.ahead_waiting, "ahead_waiting_bytes", "ahead.waiting", "Bytes asked for ahead of use and not used yet."),
    COUNTER(cache.ahead_extents, "ahead_extents_total", "ahead.extents", "Reads of several frames at once."),
    COUNTER(cache.ahead_bytes, "ahead_bytes_total", "ahead.bytes", "Bytes read by reads of several frames."),
    COUNTER(cache.ahead_frames, "ahead_frames_total", "ahead.frames", "Frames that came with reads of several frames."),
    COUNTER(cache.ahead_errors, "ahead_errors_total", "ahead.errors",
            "Reads of several frames that failed, and frames in them that were damaged."),
    COUNTER(cache.promoted, "ahead_promoted_total", "ahead.promoted",
            "Frames asked for ahead that a fault wanted before they were there."),

    GAUGE(engine.lacking, "vms_lacking_memory", "shortage.vms", "VMs for whose pages there is no memory now."),
    COUNTER(workers.short_huge, "shortage_huge_pages_total", "shortage.huge_pages",
            "Fills that found no page of 2 MiB."),
    COUNTER(workers.short_memory, "shortage_memory_total", "shortage.memory",
            "Fills that found no memory for a page of 4 KiB."),
    COUNTER(workers.found_missing, "found_missing_total", "shortage.found_missing",
            "Looks at a VM before its release that found pages absent, to be filled again."),
    GAUGE(pool.total, "huge_pages", "huge_pages.total", "Pages of 2 MiB in the host's pool."),
    GAUGE(pool.free, "huge_pages_free", "huge_pages.free", "Free pages of 2 MiB in the host's pool."),
    GAUGE(pool.reserved, "huge_pages_reserved", "huge_pages.reserved",
          "Free pages of 2 MiB that the kernel has promised to mappings."),
    GAUGE(pool.surplus, "huge_pages_surplus", "huge_pages.surplus", "Pages of 2 MiB beyond the pool's own number."),
    GAUGE(engine.promised, "huge_pages_promised", "huge_pages.promised", "Pages of 2 MiB that attached VMs will need."),

    GAUGE(engine.replay_on, NULL, "replay.on", "Working sets are streamed in."),
    GAUGE(workers.replaying, "replays_running", "replay.running", "VMs whose working set is being streamed in."),
    COUNTER(workers.replays, "replays_total", "replay.done", "Working sets streamed in to their end."),
    COUNTER(workers.replayed_units, "replay_pages_total", "replay.pages", "Pages of 4 KiB installed by replay."),
    COUNTER(workers.replay_late, "replay_late_pages_total", "replay.late",
            "Pages of 4 KiB of traces that were touched before replay came to them."),
    GAUGE(workers.collapsing, "collapses_running", "huge.running",
          "VMs whose working set is being put together to pages of 2 MiB."),
    COUNTER(workers.collapsed, "collapsed_total", "huge.collapsed",
            "Pages of 2 MiB that were put together of pages of 4 KiB."),
    COUNTER(workers.collapse_failed, "collapse_failed_total", "huge.failed",
            "Calls to put a page of 2 MiB together that the kernel refused."),
    COUNTER(workers.collapse_filled, "collapse_filled_pages_total", "huge.filled",
            "Pages of 4 KiB installed to complete pages of 2 MiB."),
    GAUGE(engine.replay_paused, "replay_paused", NULL, "1 while replay pauses because memory is scarce."),
    GAUGE(engine.scarce, NULL, "replay.scarce", "The host is short of memory: replay of 4 KiB pages pauses."),
    GAUGE(engine.huge_scarce, NULL, "replay.huge_scarce",
          "The host is short of huge pages: replay of 2 MiB pages pauses."),
    GAUGE(recordings.orders, NULL, "recordings.orders", "Orders to record VMs."),
    GAUGE(recordings.vms, NULL, "recordings.vms", "VMs that are being recorded."),
    GAUGE(recordings.pages, NULL, "recordings.pages", "Pages of 4 KiB noted in recordings that are held."),

    GAUGE(lanes.lanes, NULL, "lanes.threads", "Threads made for VMs that make their server wait."),
    GAUGE(lanes.vms, "lane_vms", "lanes.vms", "VMs with a thread of their own, because they make their server wait."),
    GAUGE(lanes.blocked, "lane_blocked_vms", "lanes.blocked", "VMs in lanes whose thread waits in the kernel."),
    COUNTER(lanes.taken, "lane_taken_total", "lanes.taken",
            "Times that a worker was held up by one VM, and its other VMs were taken from it."),
    COUNTER(lanes.refused, "lane_refused_total", "lanes.refused", "Times that no lane was left for a VM."),

    GAUGE(templates.templates, "templates", NULL, "Templates."),
    GAUGE(templates.bytes, "template_bytes", "templates.bytes", "Bytes that are filled in templates."),
    GAUGE(templates.limit, "template_limit_bytes", "templates.limit", "The bound of the bytes in templates."),
    GAUGE(templates.clones, "template_clones", NULL, "VMs that map a template."),
    GAUGE(templates.refused, "template_private_pages", NULL,
          "Pages of present templates that VMs got privately because there was no room."),
    GAUGE(templates.repaired, "template_repaired_pages", NULL,
          "Pages of present templates that a client had made zero."),

    GAUGE(files.there, "files_mounted", "files.mounted", "1 if images can be opened as files."),
    GAUGE(files.open, "files_open", "files.open", "Files of images that are open or mapped."),
    COUNTER(files.opens, "files_opened_total", "files.opened", "Files of images opened."),
    GAUGE(files.waiting, "files_waiting", "files.waiting", "Requests of the kernel for files that have no answer yet."),
    ROW(FL_KIND_GAUGE, FL_SHAPE_NS, files.oldest_ns, "files_oldest_request_seconds", "files.oldest_wait_ms",
        "How long the oldest of them has waited; 0 if there is none."),
    COUNTER(files.reads, "files_reads_total", "files.reads", "READs of files answered with bytes."),
    COUNTER(files.bytes, "files_read_bytes_total", "files.bytes", "Bytes that these brought."),
    COUNTER(files.waited, "files_reads_waited_total", "files.waited", "READs that had to wait for frames."),
    COUNTER(files.held, "files_reads_held_total", "files.held",
          "Times that a READ was held back because a frame could not be read just then."),
    COUNTER(files.failed, "files_reads_failed_total", "files.failed",
          "READs given up, those that the kernel repeats counted once: programs that touch these pages get SIGBUS."),
    COUNTER(files.interrupted, "files_interrupted_total", "files.interrupted",
          "Requests whose thread was killed, or had a signal to handle, before the answer."),
    COUNTER(files.resent, "files_resent_total", "files.resent",
          "Requests that an engine before had read, and the kernel has sent again."),

    GAUGE(captures.running, "captures_running", "captures.running", "Captures of VMs for checkpoints that run."),
    GAUGE(captures.kept, "captures_kept", "captures.kept",
          "VMs whose writes are tracked from one checkpoint to the next."),
    COUNTER(captured.completed, "captures_completed_total", "captures.completed",
            "Captures whose image was published."),
    COUNTER(captures_failed, NULL, "captures.failed", "Captures that failed or were refused."),
    COUNTER(captured.by_fault, "capture_fault_pages_total", "captures.by_fault",
            "Pages of 4 KiB that captures copied because the guest wrote to them."),
    COUNTER(captured.by_sweep, "capture_sweep_pages_total", "captures.by_sweep",
            "Pages of 4 KiB that captures copied in turn."),
    COUNTER(captured.write_faults, "capture_write_faults_total", "captures.write_faults",
            "Write faults of guests that were being captured."),

    GAUGE(keeper.up, "keeper_up", NULL, "1 if a keeper would start another engine."),
    GAUGE(keeper.stopped, "keeper_stopped", "keeper.stopped",
          "1 if the keeper was stopped by a signal or a debugger: no engine that dies is replaced."),
    ROW(FL_KIND_GAUGE, FL_SHAPE_NS, keeper.stall_ns, "takeover_stall_seconds", NULL,
        "For how long no engine served when the last one took over; absent if none has yet."),
    GAUGE(keeper.generation, "engine_generation", "keeper.generation", "Engines that have served under this keeper."),
    COUNTER(keeper.deaths, "engine_deaths_total", "keeper.deaths", "Engines that died."),

    COUNTER(log.dropped, "log_lines_dropped_total", "log.dropped",
            "Lines of the engine's log that were lost, as its reader did not read or could not be written to."),
    COUNTER(log.held_back, "log_lines_held_back_total", "log.held_back",
            "Lines of the engine's log that were held back, as there were too many of one event and peer."),
};
// clang-format on
const size_t fl_counter_row_count = sizeof(fl_counter_rows) / sizeof(fl_counter_rows[0]);

const char *fl_counter_row_prefix(const struct fl_counter_row *row)
{
    return strncmp(row->metric, "process_", strlen("process_")) == 0 ? "" : "faultline_";
}

uint64_t fl_counter_row_value(const struct fl_counter_row *row, const struct fl_stats *stats)
{
    const void *field = (const char *)stats + row->offset;
    switch (row->shape) {
    case FL_SHAPE_UINT:
        return *(const unsigned *)field;
    case FL_SHAPE_BOOL:
        return *(const bool *)field;
    case FL_SHAPE_U64:
    case FL_SHAPE_NS:
        break;
    }
    return fl_counter_get(field);
}

bool fl_counter_row_is_summed(const struct fl_counter_row *row)
{
    // Below the first byte of `workers` this wraps around, and is beyond its last one as well.
    return row->offset - offsetof(struct fl_stats, workers) < sizeof(struct fl_shard_stats);
}
