// SPDX-License-Identifier: Apache-2.0
//
// What is done to the service, in random order and at random moments, while its clients run.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/chaos.h"
#include "bench/chaos_process.h"
#include "bench/clock.h"
#include "tests/support/memory.h"

enum { TICK_MS = 2, PATIENCE_MS = 30000, AWAY_MS = 200, STATUS_MS = 100 };

enum event { KILL_ENGINE, KILL_STANDBY, KILL_CLIENT, UPGRADE, RESTART, EVENTS };

static uint64_t dice(struct chaos_run *run, uint64_t sides)
{
    return random_next(&run->random) % sides;
}

// --- waiting ---

static void reap_upgrade(struct chaos_run *run)
{
    int status = 0;
    if (run->upgrade == 0 || waitpid(run->upgrade, &status, WNOHANG) != run->upgrade)
        return;
    run->upgrade = 0;
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    run->done.upgrades++;
    run->done.upgrades_disturbed += run->disturbed;
    run->done.upgrades_failed += !good;
    if (good || run->disturbed)
        return;
    fprintf(stderr, "chaos: an upgrade that nothing disturbed failed\n");
    run->failed = true;
}

static void look(struct chaos_run *run)
{
    chaos_service_follow(&run->service);
    chaos_crowd_look(&run->crowd);
    reap_upgrade(run);
    if (!chaos_service_reap(&run->service))
        run->failed = true;
}

static bool goes_on(const struct chaos_run *run)
{
    return !run->failed && !chaos_told_to_end() && chaos_crowd_good(&run->crowd) &&
           run->service.died_unasked == 0;
}

static void go_on_for(struct chaos_run *run, uint64_t us)
{
    uint64_t end = bench_now_ns() + us * 1000;
    look(run);
    while (goes_on(run) && bench_now_ns() + TICK_MS * 1000000 < end) {
        poll(NULL, 0, TICK_MS);
        look(run);
    }
    uint64_t now = bench_now_ns();
    if (now < end && goes_on(run))
        usleep((useconds_t)((end - now) / 1000));
}

static bool await(struct chaos_run *run, bool (*condition)(struct chaos_run *run), const char *what)
{
    uint64_t end = bench_now_ns() + PATIENCE_MS * 1000000u;
    look(run);
    while (!condition(run)) {
        if (!goes_on(run))
            return false;
        if (bench_now_ns() > end) {
            fprintf(stderr, "chaos: waited %d s in vain for %s\n", PATIENCE_MS / 1000, what);
            run->failed = true;
            return false;
        }
        poll(NULL, 0, TICK_MS);
        look(run);
    }
    return true;
}

static bool serves(struct chaos_run *run)
{
    return run->service.serving > 0;
}

static bool upgraded(struct chaos_run *run)
{
    return run->upgrade == 0;
}

static bool is_empty(struct chaos_run *run)
{
    return chaos_crowd_empty(&run->crowd);
}

// --- events ---

static void kill_client(struct chaos_run *run)
{
    run->done.client_kills += chaos_crowd_kill_one(&run->crowd, random_next(&run->random));
}

// Now and then with a client, when its engine has just gone.
static void kill_engine(struct chaos_run *run)
{
    if (!await(run, serves, "an engine that serves"))
        return;
    run->disturbed = true;
    if (!chaos_service_kill_engine(&run->service)) {
        run->done.not_done++;
        return;
    }
    run->done.kills++;
    if (dice(run, 16) == 0)
        kill_client(run);
}

static void kill_standby(struct chaos_run *run)
{
    run->disturbed = true;
    run->done.standby_kills += chaos_service_kill_standby(&run->service);
}

// Half of the upgrades are left alone.
static void upgrade(struct chaos_run *run)
{
    if (!await(run, upgraded, "an upgrade's end") || !await(run, serves, "an engine that serves"))
        return;
    run->disturbed = false;
    run->upgrade =
        chaos_service_upgrade(&run->service, dice(run, 2) ? run->service.program : NULL, false);
    if (run->upgrade < 0) {
        run->upgrade = 0;
        run->failed = true;
    }
    if (dice(run, 2) == 0)
        await(run, upgraded, "an upgrade's end");
}

static void reexec(struct chaos_run *run)
{
    run->disturbed = false;
    run->upgrade = chaos_service_upgrade(&run->service, NULL, true);
    if (run->upgrade < 0) {
        run->upgrade = 0;
        run->failed = true;
    }
    if (await(run, upgraded, "the end of an upgrade of the keeper"))
        run->done.upgrades--; // it is counted as a restart
}

// Nobody keeps for a while: the engine goes on by itself, and nothing must happen to it.
static void replace_keeper(struct chaos_run *run)
{
    chaos_service_kill_keeper(&run->service);
    go_on_for(run, dice(run, AWAY_MS * 1000));
    unsigned ready = run->service.ready;
    if (!chaos_service_start(&run->service))
        run->failed = true;
    uint64_t end = bench_now_ns() + PATIENCE_MS * 1000000u;
    while (goes_on(run) && run->service.ready == ready && bench_now_ns() < end)
        go_on_for(run, TICK_MS * 1000);
    if (run->service.ready == ready && !chaos_told_to_end()) {
        fprintf(stderr, "chaos: a new keeper does not get ready\n");
        run->failed = true;
    }
}

static void restart_managed(struct chaos_run *run, bool killed)
{
    if (!chaos_service_restart_managed(&run->service, killed))
        run->failed = true;
    look(run);
}

static void restart(struct chaos_run *run)
{
    enum chaos_restart how = CHAOS_EXECED;
    if (dice(run, 3) > 0)
        how = run->service.peer == NULL ? CHAOS_KILLED
              : dice(run, 2) == 0       ? CHAOS_LEFT
                                        : CHAOS_FOUND_DEAD;
    if (!await(run, upgraded, "an upgrade's end") || !await(run, serves, "an engine that serves"))
        return;
    if (how == CHAOS_EXECED)
        reexec(run);
    else if (how == CHAOS_KILLED)
        replace_keeper(run);
    else
        restart_managed(run, how == CHAOS_FOUND_DEAD);
    run->done.restarts[how] += !run->failed;
}

// The keeper's place is taken by one under a service manager, which finds the engine alive.
static void move_under_manager(struct chaos_run *run)
{
    if (!await(run, upgraded, "an upgrade's end") || !await(run, serves, "an engine that serves"))
        return;
    chaos_service_kill_keeper(&run->service);
    if (!chaos_service_start_managed(&run->service))
        run->failed = true;
    run->done.restarts[CHAOS_KILLED] += !run->failed;
    look(run);
    // That engine is not the manager's to end: on with one that is.
    if (goes_on(run))
        kill_engine(run);
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
        uint32_t k = (uint32_t)dice(run, i);
        enum event other = events[i - 1];
        events[i - 1] = events[k];
        events[k] = other;
    }
    *ret_events = events;
    return count;
}

static void act(struct chaos_run *run, enum event event)
{
    static void (*const acts[EVENTS])(struct chaos_run * run) = {kill_engine, kill_standby,
                                                                 kill_client, upgrade, restart};
    acts[event](run);
}

static void act_all(struct chaos_run *run)
{
    enum event *events = NULL;
    uint32_t count = plan(run, &events);
    for (uint32_t i = 0; i < count && goes_on(run); i++) {
        if (run->options->managed && i == count / 2)
            move_under_manager(run);
        // Every eighth comes at once, as a second blow.
        if (dice(run, 8) > 0)
            go_on_for(run, dice(run, (uint64_t)run->options->every_ms * 2000 + 1));
        if (goes_on(run))
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
    for (unsigned i = 0; i < PATIENCE_MS / TICK_MS / 10; i++) {
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
    if (!await(run, serves, "an engine that serves") || !await(run, upgraded, "an upgrade's end") ||
        !await(run, is_empty, "the clients' end"))
        return;
    run->done.vms_left = !await(run, without_vms, "the engine to have no VM");
    if (!goes_on(run))
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

static bool is_ready(struct chaos_run *run)
{
    return run->service.ready > 0;
}

void chaos_drive(struct chaos_run *run)
{
    uint64_t start = bench_now_ns();
    run->crowd.closed = true; // none before there is a socket
    run->failed = !chaos_service_start(&run->service);
    if (await(run, is_ready, "the service")) {
        run->crowd.closed = false;
        act_all(run);
        go_on_for(run, (uint64_t)run->options->seconds * 1000000);
    }
    run->done.duration_ns = bench_now_ns() - start;
    if (goes_on(run))
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
