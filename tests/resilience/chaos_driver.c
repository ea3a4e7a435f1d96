// SPDX-License-Identifier: Apache-2.0
//
// A run from start to end: events in random order at random moments, and then an end at which
// nothing may be left. The events themselves are in chaos_act.c.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "tests/resilience/chaos_act.h"
#include "tests/resilience/chaos_process.h"

enum {
    TICK_MS = 2,
    LEFT_MS = 3000,
    STATUS_MS = 50,
    LOOKS_AGAIN_MS = 2500, // the service looks again once a second
    ALONE_MS = 500,
    COUNT_MOST = 30,
    DRAIN_US = 20000
};

enum event { KILL_ENGINE, KILL_STANDBY, KILL_CLIENT, UPGRADE, RESTART, EVENTS };

// --- events ---

static uint32_t add(enum event *events, uint32_t count, enum event event, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++)
        events[count + i] = event;
    return count + times;
}

static void shuffle(struct chaos_run *run, enum event *events, uint32_t count)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t k = (uint32_t)chaos_dice(run, i);
        enum event other = events[i - 1];
        events[i - 1] = events[k];
        events[k] = other;
    }
}

// Makes the events of a run, or of half a run: with a service manager there are two halves.
static uint32_t plan(struct chaos_run *run, enum event **ret_events)
{
    const struct chaos_options *options = run->options;
    unsigned parts = options->managed ? 2 : 1;
    const uint32_t times[EVENTS] = {[KILL_ENGINE] = options->kills / parts,
                                    [KILL_STANDBY] = options->kills / parts / 10,
                                    [KILL_CLIENT] = options->kills / parts / 2,
                                    [UPGRADE] = options->upgrades / parts,
                                    [RESTART] = options->restarts};
    uint32_t count = 0;
    for (enum event event = KILL_ENGINE; event < EVENTS; event++)
        count += times[event];
    enum event *events = calloc(count + 1, sizeof(*events));
    if (events == NULL)
        return 0;
    uint32_t put = 0;
    for (enum event event = KILL_ENGINE; event < EVENTS; event++)
        put = add(events, put, event, times[event]);
    shuffle(run, events, count);
    *ret_events = events;
    return count;
}

static void upgrade(struct chaos_run *run)
{
    chaos_upgrade(run, chaos_dice(run, 2) ? run->service.program : NULL);
}

static void act(struct chaos_run *run, enum event event)
{
    static void (*const acts[EVENTS])(struct chaos_run * run) = {
        chaos_kill_engine, chaos_kill_standby, chaos_kill_client, upgrade, chaos_restart};
    acts[event](run);
}

static void look_at_swap(struct chaos_run *run)
{
    uint64_t pages = run->limit ? chaos_limit_swapped(run->limit) : 0;
    if (pages > run->swapped_most)
        run->swapped_most = pages;
}

static void act_all(struct chaos_run *run)
{
    enum event *events = NULL;
    uint32_t count = plan(run, &events);
    for (uint32_t i = 0; i < count && chaos_goes_on(run); i++) {
        // Every eighth event comes at once after the one before.
        if (chaos_dice(run, 8) > 0)
            chaos_go_on(run, chaos_dice(run, (uint64_t)run->options->every_ms * 2000 + 1));
        if (chaos_goes_on(run))
            act(run, events[i]);
        look_at_swap(run);
        if (i % 50 == 49)
            fprintf(stderr, "chaos: %u of %u events, %llu clients\n", i + 1, count,
                    (unsigned long long)run->crowd.started);
    }
    free(events);
}

// --- the end ---

static bool is_empty(struct chaos_run *run)
{
    return chaos_crowd_count(&run->crowd) == 0;
}

// Asks not too often, as each question takes a process.
static bool knows_all(struct chaos_run *run)
{
    if (bench_now_ns() - run->asked_ns < (uint64_t)STATUS_MS * 1000000)
        return false;
    run->asked_ns = bench_now_ns();
    return chaos_service_status(&run->service).vms == (long long)chaos_crowd_count(&run->crowd);
}

static void count_left(struct chaos_run *run)
{
    pid_t pids[16];
    for (unsigned i = 0; i < LEFT_MS / TICK_MS; i++) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        run->done.left = chaos_descendants(pids, 16);
        if (run->done.left == 0)
            return;
        poll(NULL, 0, TICK_MS);
    }
    for (unsigned i = 0; i < run->done.left && i < 16; i++)
        fprintf(stderr, "chaos: process %d was left\n", (int)pids[i]);
}

// The engine has no VM, and no page or replay of a VM that has gone.
static bool has_none(struct chaos_run *run)
{
    if (bench_now_ns() - run->asked_ns < (uint64_t)STATUS_MS * 1000000)
        return false;
    run->asked_ns = bench_now_ns();
    struct chaos_status status = chaos_service_status(&run->service);
    run->done.memory = status.memory > 0 ? (uint64_t)status.memory : 0;
    return status.vms == 0 && status.waiting == 0;
}

// Has all clients end. Then the engine must have no VM.
static bool leave_none(struct chaos_run *run)
{
    chaos_chores_stop(&run->chores);
    chaos_crowd_close(&run->crowd, true);
    if (!chaos_await(run, is_empty, "the clients' end"))
        return false;
    run->done.vms_left = !chaos_await(run, has_none, "the engine to have no VM");
    return !run->done.vms_left;
}

static bool begins_to_drain(struct chaos_run *run)
{
    return run->service.draining > 0;
}

// Drains the service. The engine that fills the VMs is killed meanwhile, or dies at its point, and
// its successor must fill the rest.
static bool drain(struct chaos_run *run)
{
    bool at_point = run->options->points != NULL;
    if (at_point && !run->service.armed && !chaos_service_arm(&run->service))
        return false;
    run->drained = false;
    run->service.draining = 0;
    run->drain = chaos_service_drain(&run->service);
    if (run->drain < 0) {
        run->drain = 0;
        return false;
    }
    if (!chaos_await(run, begins_to_drain, "the engine to drain"))
        return false;
    chaos_go_on(run, chaos_dice(run, DRAIN_US));
    if (!at_point)
        chaos_kill_engine(run);
    return chaos_await(run, chaos_drained, "the drain's end") &&
           (run->drained || !fprintf(stderr, "chaos: `faultline drain` failed\n"));
}

// Ends the service while it has VMs, which must live on without it.
static bool stop(struct chaos_run *run)
{
    chaos_crowd_open(&run->crowd);
    chaos_go_on(run, (uint64_t)ALONE_MS * 1000);
    chaos_crowd_close(&run->crowd, false);
    if (!chaos_await(run, knows_all, "the engine to know all VMs"))
        return false;
    run->done.let_go += chaos_crowd_count(&run->crowd);
    if (run->options->mixed && !drain(run))
        return false;
    int status = chaos_service_stop(&run->service);
    run->done.stop_status = run->done.stop_status != 0 ? run->done.stop_status : status;
    chaos_crowd_close(&run->crowd, true);
    return chaos_await(run, is_empty, "the end of the clients that were let go");
}

// --- all of it ---

static void give_all_back(struct chaos_run *run)
{
    if (run->options->shortages)
        chaos_shortages_stop(&run->shortages);
}

// Kills the clients first: a client in a fault must not lose the engine that it waits for.
static void give_up(struct chaos_run *run)
{
    give_all_back(run);
    chaos_crowd_kill(&run->crowd);
    if (run->upgrade > 0)
        kill(run->upgrade, SIGKILL);
    if (run->record > 0)
        kill(run->record, SIGKILL);
    if (run->drain > 0)
        kill(run->drain, SIGKILL);
    chaos_chores_stop(&run->chores);
    chaos_service_kill(&run->service);
}

static bool listens(struct chaos_run *run)
{
    return access(run->service.socket, F_OK) == 0;
}

// After a shortage the server must lack nothing. Asks not too often, as that takes a process.
static bool has_all(struct chaos_run *run)
{
    if (bench_now_ns() - run->asked_ns < (uint64_t)STATUS_MS * 1000000)
        return false;
    run->asked_ns = bench_now_ns();
    return listens(run) && chaos_service_status(&run->service).lacks == 0;
}

// Records the image before anything happens to the service. From then on VMs get its working set
// ahead.
static void record_first(struct chaos_run *run)
{
    if (run->recorded)
        return;
    run->record = chaos_service_record(&run->service, "3", "300ms");
    if (run->record < 0) {
        run->record = 0;
        run->failed = true;
    }
    chaos_await(run, chaos_recorded, "a recording");
}

// Runs a service from its first keeper to its last process. `point`: engines die there; NULL: the
// driver kills them.
static void live(struct chaos_run *run, struct chaos_point *point)
{
    run->done.over = false;
    chaos_crowd_close(&run->crowd, false); // no client starts before there is a socket
    run->failed |= !chaos_service_start(&run->service);
    if (chaos_await(run, chaos_serves, "the service") &&
        chaos_await(run, listens, "the image's socket")) {
        chaos_crowd_open(&run->crowd);
        record_first(run);
        if (run->options->mixed)
            chaos_chores_start(&run->chores);
        if (run->options->shortages)
            chaos_shortages_start(&run->shortages);
        if (point != NULL)
            chaos_act_at(run, point);
        else
            act_all(run);
        if (point == NULL && run->options->managed && chaos_goes_on(run)) {
            chaos_move_under_manager(run);
            act_all(run);
        }
        chaos_go_on(run, (uint64_t)run->options->seconds * 1000000);
        bool short_of = run->options->shortages;
        give_all_back(run);
        if (short_of)
            chaos_go_on(run, LOOKS_AGAIN_MS * 1000ull);
        if (short_of && chaos_goes_on(run))
            chaos_await(run, has_all, "the server to lack nothing");
    }
    unsigned died = run->service.died_armed;
    if (chaos_goes_on(run) && chaos_rests(run) && leave_none(run) && stop(run)) {
        count_left(run);
        run->done.over = true;
    }
    if (!run->done.over)
        give_up(run);
    if (point != NULL)
        point->hits += run->service.died_armed - died;
}

static void live_at(struct chaos_run *run, struct chaos_point *point, uint64_t count)
{
    char text[CHAOS_POINT_NAME + 24];
    snprintf(text, sizeof(text), "%s:%llu", point->name, (unsigned long long)count);
    chaos_service_set_point(&run->service, text);
    live(run, point);
    fprintf(stderr, "chaos: died %u times at %s\n", point->hits, text);
}

static void live_at_points(struct chaos_run *run)
{
    run->done.points = chaos_split_points(run->options->points, run->done.point);
    for (uint32_t i = 0; i < run->done.points && chaos_goes_on(run); i++) {
        struct chaos_point *point = &run->done.point[i];
        uint64_t count = 1 + chaos_dice(run, 2) * chaos_dice(run, COUNT_MOST);
        live_at(run, point, count);
        // An engine may pass this point only once in its life.
        if (point->hits == 0 && count > 1 && chaos_goes_on(run))
            live_at(run, point, 1);
        if (point->hits == 0)
            run->failed = true;
    }
}

void chaos_drive(struct chaos_run *run)
{
    uint64_t start = bench_now_ns();
    if (run->options->points != NULL)
        live_at_points(run);
    else
        live(run, NULL);
    run->done.duration_ns = bench_now_ns() - start;
}

bool chaos_good(const struct chaos_run *run)
{
    const struct chaos_done *done = &run->done;
    return done->over && !run->failed && chaos_crowd_good(&run->crowd) &&
           run->service.died_unasked == 0 && run->service.replayed > 0 && done->left == 0 &&
           !done->vms_left && done->stop_status == 0 &&
           chaos_longest_ns(run) <= run->options->limit_ms * 1000000;
}
