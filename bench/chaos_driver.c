// SPDX-License-Identifier: Apache-2.0
//
// The whole of a run: events in random order at random moments, and an end that must be clean.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/chaos_act.h"
#include "bench/chaos_process.h"
#include "bench/clock.h"

enum { TICK_MS = 2, LEFT_MS = 3000, STATUS_MS = 100 };

enum event { KILL_ENGINE, KILL_STANDBY, KILL_CLIENT, UPGRADE, RESTART, EVENTS };

static bool is_empty(struct chaos_run *run)
{
    return chaos_crowd_empty(&run->crowd);
}

// --- all of them ---

static uint32_t add(enum event *events, uint32_t count, enum event event, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++)
        events[count + i] = event;
    return count + times;
}

static uint32_t plan(struct chaos_run *run, enum event **ret_events)
{
    const struct chaos_options *options = run->options;
    uint32_t standby = options->kills / 10;
    uint32_t clients = options->kills / 2;
    uint32_t all = options->kills + standby + clients + options->upgrades + options->restarts;
    enum event *events = calloc(all + 1, sizeof(*events));
    if (events == NULL)
        return 0;
    uint32_t count = add(events, 0, KILL_ENGINE, options->kills);
    count = add(events, count, KILL_STANDBY, standby);
    count = add(events, count, KILL_CLIENT, clients);
    count = add(events, count, UPGRADE, options->upgrades);
    count = add(events, count, RESTART, options->restarts);
    for (uint32_t i = count; i > 1; i--) {
        uint32_t k = (uint32_t)chaos_dice(run, i);
        enum event other = events[i - 1];
        events[i - 1] = events[k];
        events[k] = other;
    }
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

static void act_all(struct chaos_run *run)
{
    enum event *events = NULL;
    uint32_t count = plan(run, &events);
    for (uint32_t i = 0; i < count && chaos_goes_on(run); i++) {
        if (run->options->managed && i == count / 2)
            chaos_move_under_manager(run);
        // Every eighth comes at once, as a second blow.
        if (chaos_dice(run, 8) > 0)
            chaos_go_on(run, chaos_dice(run, (uint64_t)run->options->every_ms * 2000 + 1));
        if (chaos_goes_on(run))
            act(run, events[i]);
        if (i % 50 == 49)
            fprintf(stderr, "chaos: %u of %u events, %llu clients\n", i + 1, count,
                    (unsigned long long)run->crowd.started);
    }
    free(events);
}

// --- the end ---

static bool without_vms(struct chaos_run *run)
{
    static uint64_t asked_ns;
    if (bench_now_ns() - asked_ns < STATUS_MS * 1000000u)
        return false;
    asked_ns = bench_now_ns();
    return chaos_service_vms(&run->service) == 0;
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

static void end(struct chaos_run *run)
{
    chaos_crowd_close(&run->crowd);
    if (!chaos_await(run, chaos_serves, "an engine that serves") ||
        !chaos_await(run, chaos_upgraded, "an upgrade's end") ||
        !chaos_await(run, is_empty, "the clients' end"))
        return;
    run->done.vms_left = !chaos_await(run, without_vms, "the engine to have no VM");
    if (!chaos_goes_on(run))
        return;
    run->done.stop_status = chaos_service_stop(&run->service);
    chaos_service_follow(&run->service);
    count_left(run);
    run->done.over = true;
}

// Clients first: a client that waits in a fault is not to lose whom it waits for.
static void give_up(struct chaos_run *run)
{
    chaos_crowd_kill(&run->crowd);
    if (run->upgrade > 0)
        kill(run->upgrade, SIGKILL);
    chaos_service_kill(&run->service);
}

static bool listens(struct chaos_run *run)
{
    return access(run->service.socket, F_OK) == 0;
}

void chaos_drive(struct chaos_run *run)
{
    uint64_t start = bench_now_ns();
    run->crowd.closed = true; // none before there is a socket
    run->failed = !chaos_service_start(&run->service);
    if (chaos_await(run, chaos_serves, "the service") &&
        chaos_await(run, listens, "the image's socket")) {
        run->crowd.closed = false;
        if (run->options->points != NULL)
            chaos_act_at_points(run);
        else
            act_all(run);
        chaos_go_on(run, (uint64_t)run->options->seconds * 1000000);
    }
    run->done.duration_ns = bench_now_ns() - start;
    if (chaos_goes_on(run))
        end(run);
    if (!run->done.over)
        give_up(run);
}

bool chaos_good(const struct chaos_run *run)
{
    const struct chaos_done *done = &run->done;
    return done->over && !run->failed && chaos_crowd_good(&run->crowd) &&
           run->service.died_unasked == 0 && done->left == 0 && !done->vms_left &&
           done->stop_status == 0 && run->crowd.longest_ns <= run->options->limit_ms * 1000000;
}
