// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/machine.h"
#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_process.h"
#include "tests/resilience/stall.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"

// Before an event the standby engine must have had time to get ready, as it has in life. After the
// event the window stays open for as long as its effects may last.
enum {
    PATIENCE_MS = 60000,
    QUIET_MS = 60000,
    LIMIT_MS = 5000,
    SETTLE_MS = 700,
    AFTER_MS = 150,
    BASELINE_MS = 100,
    HANG_MS = 1000
};

#define MS 1000000u

// --- clients ---

static void start_client(struct stall_run *run, uint32_t number)
{
    const struct stall_options *options = run->options;
    struct stall_plan plan = {.socket = run->service.socket,
                              .pages = options->pages,
                              .interval_us =
                                  (uint32_t)((uint64_t)options->vms * 1000000 / options->rate),
                              .seed = random_next(&run->random)};
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        close_range(STDERR_FILENO + 1, ~0U, 0);
        _exit(stall_client_main(&plan, run->board, &run->board->slot[number]));
    }
    run->pid[number] = pid > 0 ? pid : 0;
    run->failed |= pid < 0;
}

static void kill_clients(struct stall_run *run)
{
    for (uint32_t i = 0; i < run->options->vms; i++) {
        if (run->pid[i] != 0)
            kill(run->pid[i], SIGKILL);
    }
    for (uint32_t i = 0; i < run->options->vms; i++) {
        if (run->pid[i] != 0)
            waitpid(run->pid[i], NULL, 0);
        run->pid[i] = 0;
        atomic_store(&run->board->slot[i].since_ns, 0);
        atomic_store(&run->board->slot[i].touches, 0);
    }
}

static void look_at_client(struct stall_run *run, uint32_t number)
{
    int status;
    uint64_t since = atomic_load(&run->board->slot[number].since_ns);
    uint64_t now = bench_now_ns();
    if (run->pid[number] != 0 && waitpid(run->pid[number], &status, WNOHANG) != 0) {
        fprintf(stderr, "stall: client %d has ended (wait status %d)\n", (int)run->pid[number],
                status);
        run->pid[number] = 0;
        run->failed = true;
    }
    if (since != 0 && now > since && now - since > (uint64_t)LIMIT_MS * MS) {
        fprintf(stderr, "stall: client %d waits for more than %d ms\n", (int)run->pid[number],
                LIMIT_MS);
        run->failed = true;
    }
}

// --- waiting ---

static bool goes_on(const struct stall_run *run)
{
    return !run->failed && !chaos_told_to_end() && run->service.died_unasked == 0;
}

static void look(struct stall_run *run)
{
    chaos_service_follow(&run->service);
    if (!chaos_service_reap(&run->service))
        run->failed = true;
    for (uint32_t i = 0; i < run->options->vms; i++)
        look_at_client(run, i);
}

static void go_on_for(struct stall_run *run, uint64_t ms)
{
    uint64_t end = bench_now_ns() + ms * MS;
    look(run);
    while (goes_on(run) && bench_now_ns() < end) {
        poll(NULL, 0, 5);
        look(run);
    }
}

typedef bool condition(struct stall_run *run, uint64_t value);

static bool await(struct stall_run *run, condition *met, uint64_t value, const char *what)
{
    uint64_t end = bench_now_ns() + (uint64_t)PATIENCE_MS * MS;
    look(run);
    while (!met(run, value)) {
        if (!goes_on(run))
            return false;
        if (bench_now_ns() > end) {
            fprintf(stderr, "stall: waited %d s in vain for %s\n", PATIENCE_MS / 1000, what);
            run->failed = true;
            return false;
        }
        poll(NULL, 0, 2);
        look(run);
    }
    return true;
}

static bool has_served(struct stall_run *run, uint64_t before)
{
    return run->service.served > before && run->service.serving > 0;
}

static bool has_execed(struct stall_run *run, uint64_t before)
{
    return run->service.execed > before;
}

static bool listens(struct stall_run *run, uint64_t unused)
{
    (void)unused;
    return access(run->service.socket, F_OK) == 0;
}

static bool all_touched(struct stall_run *run, uint64_t least)
{
    for (uint32_t i = 0; i < run->options->vms; i++) {
        if (atomic_load(&run->board->slot[i].touches) < least)
            return false;
    }
    return true;
}

static bool all_in_round(struct stall_run *run, uint64_t round)
{
    for (uint32_t i = 0; i < run->options->vms; i++) {
        if (atomic_load(&run->board->slot[i].round) != round)
            return false;
    }
    return true;
}

// Every touch that began before has been recorded.
static bool all_after(struct stall_run *run, uint64_t time)
{
    for (uint32_t i = 0; i < run->options->vms; i++) {
        uint64_t since = atomic_load(&run->board->slot[i].since_ns);
        if (since != 0 && since <= time)
            return false;
    }
    return true;
}

// Others of the machine may keep the CPUs busy: an event is put off until they do not, or for so
// long that it must do as it is. Percent of one CPU, our own clients' share included.
static uint32_t await_quiet(struct stall_run *run)
{
    uint64_t end = bench_now_ns() + (uint64_t)QUIET_MS * MS;
    for (;;) {
        uint64_t busy = bench_machine_busy_ns();
        uint64_t start = bench_now_ns();
        go_on_for(run, SETTLE_MS + random_next(&run->random) % 100);
        uint64_t percent = (bench_machine_busy_ns() - busy) * 100 / (bench_now_ns() - start);
        if (percent <= run->options->quiet || bench_now_ns() > end || !goes_on(run))
            return (uint32_t)percent;
    }
}

// --- the window ---

static void open_window(struct stall_run *run)
{
    for (uint32_t i = 0; i < run->options->vms; i++)
        run->board->slot[i].window = (struct bench_hist){0};
    atomic_store(&run->board->to_ns, UINT64_MAX);
    atomic_store(&run->board->from_ns, bench_now_ns());
}

static void close_window(struct stall_run *run, struct stall_result *result)
{
    uint64_t now = bench_now_ns();
    struct bench_hist event = {0};
    atomic_store(&run->board->to_ns, now);
    bool whole = await(run, all_after, now, "touches to end");
    uint64_t from = atomic_exchange(&run->board->from_ns, 0);
    if (!whole)
        return;
    for (uint32_t i = 0; i < run->options->vms; i++)
        bench_hist_merge(&event, &run->board->slot[i].window);
    result->longest_ns[result->events] = event.max_ns;
    result->window_ns[result->events++] = now - from;
    bench_hist_merge(&result->touches, &event);
}

// --- events ---

static bool upgrade(struct stall_run *run, bool keeper, pid_t *ret_pid)
{
    *ret_pid = chaos_service_upgrade(&run->service, NULL, keeper);
    return *ret_pid > 0;
}

static bool command_ended(struct stall_run *run, uint64_t pid)
{
    int status = 0;
    if (waitpid((pid_t)pid, &status, WNOHANG) != (pid_t)pid)
        return false;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "stall: `faultline upgrade` failed\n");
        run->failed = true;
    }
    return true;
}

static bool replace_keeper(struct stall_run *run)
{
    unsigned served = run->service.served;
    chaos_service_kill_keeper(&run->service);
    return chaos_service_start(&run->service) && await(run, has_served, served, "the keeper");
}

// Makes the event, and returns when it is over for the VMs. *ret_command is a command that may go
// on.
static bool happen(struct stall_run *run, enum stall_kind kind, pid_t *ret_command)
{
    struct chaos_service *service = &run->service;
    unsigned served = service->served;
    unsigned execed = service->execed;
    switch (kind) {
    case STALL_ENGINE_KILL:
        return chaos_service_kill_engine(service, SIGKILL) &&
               await(run, has_served, served, "an engine that serves");
    case STALL_UPGRADE:
        return upgrade(run, false, ret_command) &&
               await(run, has_served, served, "the upgraded engine");
    case STALL_KEEPER_EXEC:
        if (!upgrade(run, true, ret_command) ||
            !await(run, command_ended, (uint64_t)*ret_command, "the keeper's upgrade"))
            return false;
        *ret_command = 0;
        return await(run, has_execed, execed, "the keeper to become another");
    case STALL_KEEPER_KILL:
        return replace_keeper(run);
    case STALL_AHEAD_HANGS:
        go_on_for(run, HANG_MS);
        return true;
    case STALL_AHEAD_KILL:
        if (!chaos_service_kill_engine(service, SIGKILL) ||
            !await(run, has_served, served, "an engine that serves"))
            return false;
        go_on_for(run, HANG_MS);
        return true;
    case STALL_LEAVE:
    case STALL_ALL_KILLED:
        return chaos_service_restart_managed(service, kind == STALL_ALL_KILLED) &&
               await(run, has_served, 0, "an engine that serves");
    case STALL_NONE:
    case STALL_KINDS:
        break;
    }
    go_on_for(run, BASELINE_MS);
    return true;
}

static bool hangs(enum stall_kind kind)
{
    return kind == STALL_AHEAD_HANGS || kind == STALL_AHEAD_KILL;
}

// Makes read-ahead hang and replaces all VMs, so that their replays wait.
static bool begin_to_hang(struct stall_run *run)
{
    if (!stall_shut(run))
        return false;
    atomic_store(&run->board->renewed, atomic_load(&run->board->round) + 1);
    atomic_fetch_add(&run->board->round, 1);
    return await(run, all_in_round, atomic_load(&run->board->round), "the clients");
}

static void measure(struct stall_run *run, enum stall_kind kind)
{
    pid_t command = 0;
    atomic_fetch_add(&run->board->round, 1);
    if (!await(run, all_in_round, atomic_load(&run->board->round), "the clients"))
        return;
    uint32_t busy = await_quiet(run);
    if (!goes_on(run) || !await(run, has_served, 0, "an engine that serves"))
        return;
    if (hangs(kind) && !begin_to_hang(run))
        run->failed = true;
    open_window(run);
    if (!happen(run, kind, &command)) {
        fprintf(stderr, "stall: %s failed\n", stall_key[kind]);
        run->failed = true;
    }
    go_on_for(run, AFTER_MS);
    run->result[kind].disturbed += busy > run->options->quiet;
    close_window(run, &run->result[kind]);
    if (hangs(kind) && !stall_open(run))
        run->failed = true;
    if (command > 0)
        await(run, command_ended, (uint64_t)command, "a command's end");
}

static bool is_wanted(const struct stall_run *run, enum stall_kind kind)
{
    size_t length = strlen(stall_key[kind]);
    if (hangs(kind) && run->options->hang == NULL)
        return false;
    for (const char *at = run->options->kinds; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, stall_key[kind], length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return run->options->kinds == NULL;
}

// --- all of it ---

static bool start(struct stall_run *run, bool managed)
{
    unsigned served = run->service.served;
    if (managed ? !chaos_service_start_managed(&run->service) : !chaos_service_start(&run->service))
        return false;
    if (!await(run, has_served, served, "the service") ||
        !await(run, listens, 0, "the image's socket"))
        return false;
    if (!managed && run->options->hang != NULL && !stall_record(run))
        return false;
    for (uint32_t i = 0; i < run->options->vms; i++)
        start_client(run, i);
    return await(run, all_touched, 2, "all clients");
}

void stall_drive(struct stall_run *run, enum stall_kind first, enum stall_kind end)
{
    run->failed |= !start(run, first >= STALL_OWN_KINDS);
    for (uint32_t i = 0; i < run->options->events && goes_on(run); i++) {
        for (enum stall_kind kind = first; kind < end && goes_on(run); kind++) {
            if (is_wanted(run, kind))
                measure(run, kind);
        }
        fprintf(stderr, "stall: round %u of %u\n", i + 1, run->options->events);
    }
    kill_clients(run);
    if (goes_on(run) && chaos_service_stop(&run->service) == 0)
        return;
    run->failed = true;
    chaos_service_kill(&run->service);
}
