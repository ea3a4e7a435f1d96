// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_act.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "tests/resilience/chaos_process.h"
#include "tests/support/memory.h"

enum { TICK_MS = 2, PATIENCE_MS = 30000, AWAY_MS = 200 };

uint64_t chaos_dice(struct chaos_run *run, uint64_t sides)
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
    run->upgraded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!run->of_keeper) { // an upgrade of the keeper counts as a restart
        run->done.upgrades++;
        run->done.upgrades_disturbed += run->disturbed;
        run->done.upgrades_failed += !run->upgraded;
    }
    if (run->upgraded || run->disturbed)
        return;
    fprintf(stderr, "chaos: an upgrade that nothing disturbed failed\n");
    run->failed = true;
}

static void reap_record(struct chaos_run *run)
{
    int status = 0;
    if (run->record == 0 || waitpid(run->record, &status, WNOHANG) != run->record)
        return;
    run->record = 0;
    run->recorded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!run->recorded) {
        fprintf(stderr, "chaos: recording that nothing disturbed failed\n");
        run->failed = true;
    }
}

static void reap_drain(struct chaos_run *run)
{
    int status = 0;
    if (run->drain == 0 || waitpid(run->drain, &status, WNOHANG) != run->drain)
        return;
    run->drain = 0;
    run->drained = WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void chaos_look(struct chaos_run *run)
{
    chaos_service_follow(&run->service);
    chaos_crowd_look(&run->crowd);
    reap_upgrade(run);
    reap_record(run);
    reap_drain(run);
    chaos_chores_look(&run->chores);
    chaos_shortages_look(&run->shortages);
    run->disturbed |= run->shortages.state != CHAOS_SHORTAGE_OFF;
    if (run->chores.bad || run->shortages.bad)
        run->failed = true;
    if (!chaos_service_reap(&run->service))
        run->failed = true;
}

bool chaos_goes_on(const struct chaos_run *run)
{
    return !run->failed && !chaos_told_to_end() && chaos_crowd_good(&run->crowd) &&
           run->service.died_unasked == 0;
}

void chaos_go_on(struct chaos_run *run, uint64_t us)
{
    uint64_t end = bench_now_ns() + us * 1000;
    chaos_look(run);
    while (chaos_goes_on(run) && bench_now_ns() + TICK_MS * 1000000 < end) {
        poll(NULL, 0, TICK_MS);
        chaos_look(run);
    }
    uint64_t now = bench_now_ns();
    if (now < end && chaos_goes_on(run))
        usleep((useconds_t)((end - now) / 1000));
}

bool chaos_await(struct chaos_run *run, chaos_condition *condition, const char *what)
{
    uint64_t end = bench_now_ns() + (uint64_t)PATIENCE_MS * 1000000;
    chaos_look(run);
    while (!condition(run)) {
        if (!chaos_goes_on(run))
            return false;
        if (bench_now_ns() > end) {
            fprintf(stderr, "chaos: waited %d s in vain for %s\n", PATIENCE_MS / 1000, what);
            run->failed = true;
            return false;
        }
        poll(NULL, 0, TICK_MS);
        chaos_look(run);
    }
    return true;
}

bool chaos_serves(struct chaos_run *run)
{
    return run->service.serving > 0;
}

bool chaos_recorded(struct chaos_run *run)
{
    return run->record == 0;
}

bool chaos_drained(struct chaos_run *run)
{
    return run->drain == 0;
}

bool chaos_upgraded(struct chaos_run *run)
{
    return run->upgrade == 0;
}

bool chaos_rests(struct chaos_run *run)
{
    return chaos_await(run, chaos_upgraded, "an upgrade's end") &&
           chaos_await(run, chaos_serves, "an engine that serves");
}

// --- events ---

void chaos_kill_client(struct chaos_run *run)
{
    run->done.client_kills += chaos_crowd_kill_one(&run->crowd, random_next(&run->random));
}

// In one case of 16 a client dies as well, just after its engine.
void chaos_kill_engine(struct chaos_run *run)
{
    bool killed = false;
    // SIGSEGV makes the kernel write a core dump, which takes its time.
    int number = run->options->shortages && chaos_dice(run, 4) == 0 ? SIGSEGV : SIGKILL;
    run->disturbed = true;
    while (!killed && chaos_await(run, chaos_serves, "an engine that serves"))
        killed = chaos_service_kill_engine(&run->service, number);
    run->done.kills += killed;
    run->done.cores += killed && number == SIGSEGV;
    if (chaos_dice(run, 16) == 0)
        chaos_kill_client(run);
}

void chaos_kill_standby(struct chaos_run *run)
{
    run->disturbed = true;
    run->done.standby_kills += chaos_service_kill_standby(&run->service);
}

static void start_upgrade(struct chaos_run *run, const char *engine, bool keeper)
{
    run->disturbed =
        run->options->points != NULL; // an engine may die at its point in the middle of it
    run->of_keeper = keeper;
    run->upgrade = chaos_service_upgrade(&run->service, engine, keeper);
    if (run->upgrade < 0) {
        run->upgrade = 0;
        run->failed = true;
    }
}

// In half of the cases nothing else happens until the upgrade has ended.
void chaos_upgrade(struct chaos_run *run, const char *engine)
{
    if (!chaos_rests(run))
        return;
    start_upgrade(run, engine, false);
    if (chaos_dice(run, 2) == 0)
        chaos_await(run, chaos_upgraded, "an upgrade's end");
}

// Returns true if the keeper has replaced itself by exec.
static bool reexec(struct chaos_run *run)
{
    unsigned before = run->service.execed;
    start_upgrade(run, NULL, true);
    if (!chaos_await(run, chaos_upgraded, "the end of an upgrade of the keeper") || !run->upgraded)
        return false;
    uint64_t end = bench_now_ns() + (uint64_t)PATIENCE_MS * 1000000;
    while (chaos_goes_on(run) && run->service.execed == before && bench_now_ns() < end)
        chaos_go_on(run, TICK_MS * 1000);
    if (run->service.execed == before && chaos_goes_on(run)) {
        fprintf(stderr, "chaos: the keeper did not exec its new program\n");
        run->failed = true;
    }
    return run->service.execed > before;
}

static bool is_unarmed(struct chaos_run *run)
{
    return chaos_service_disarm(&run->service);
}

// For a while there is no keeper. The engine goes on by itself, and must not die meanwhile.
static bool replace_keeper(struct chaos_run *run)
{
    if (!chaos_await(run, is_unarmed, "an engine's death at its point") || !chaos_rests(run))
        return false;
    chaos_service_kill_keeper(&run->service);
    chaos_go_on(run, chaos_dice(run, AWAY_MS * 1000));
    run->service.serving = 0; // until the new keeper logs that the engine serves
    if (!chaos_service_start(&run->service))
        run->failed = true;
    return chaos_await(run, chaos_serves, "a new keeper to know the engine");
}

static bool restart_managed(struct chaos_run *run, bool killed)
{
    if (!chaos_service_restart_managed(&run->service, killed))
        run->failed = true;
    chaos_look(run);
    return !run->failed;
}

void chaos_restart(struct chaos_run *run)
{
    bool managed = run->service.peer != NULL;
    bool third = chaos_dice(run, 3) == 0;
    enum chaos_restart how =
        managed ? (third ? CHAOS_FOUND_DEAD : CHAOS_LEFT) : (third ? CHAOS_EXECED : CHAOS_KILLED);
    if (!chaos_rests(run))
        return;
    bool done = how == CHAOS_EXECED   ? reexec(run)
                : how == CHAOS_KILLED ? replace_keeper(run)
                                      : restart_managed(run, how == CHAOS_FOUND_DEAD);
    run->done.restarts[how] += done;
    // Descriptors from the fd store must outlive an exec as well.
    if (managed && third && chaos_rests(run))
        run->done.restarts[CHAOS_EXECED] += reexec(run);
}

// Kills the keeper and starts one under a service manager. That one finds the engine alive.
void chaos_move_under_manager(struct chaos_run *run)
{
    if (!chaos_rests(run))
        return;
    chaos_service_kill_keeper(&run->service);
    if (!chaos_service_start_managed(&run->service))
        run->failed = true;
    run->done.restarts[CHAOS_KILLED] += !run->failed;
    chaos_look(run);
    // That engine is no descendant of the manager's keeper, so the manager could not end it. Its
    // successor is.
    if (chaos_goes_on(run))
        chaos_kill_engine(run);
}
