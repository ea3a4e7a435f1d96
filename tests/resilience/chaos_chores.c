// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_chores.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "tests/resilience/chaos_process.h"
#include "tests/support/memory.h"

enum { MS = 1000000, KILL_WITHIN_MS = 400, PATIENCE_MS = 60000, CHORE_ARGS = 16 };

// Where CHAOS_TRACE's output goes: a file beside the store.
static void trace_path(const struct chaos_chores *chores, char path[CHAOS_PATH + 8])
{
    snprintf(path, CHAOS_PATH + 8, "%s.trace", chores->service->store);
}

// --- starting ---

static const char *const words[CHAOS_CHORES][CHORE_ARGS] = {
    [CHAOS_TEMPLATE] = {"template", "image"},
    [CHAOS_RECORD_KILLED] = {"record", "--runs", "4", "--share", "100", "--window", "200ms",
                             "image"},
    [CHAOS_CANCEL] = {"record", "--cancel", "image"},
    [CHAOS_RECORD] = {"record", "--runs", "2", "--share", "100", "--window", "200ms", "--timeout",
                      "10", "image"},
    [CHAOS_TRACE] = {"trace", "show", "--json", "image"},
    [CHAOS_COMPLETE] = {"template", "--complete", "image"},
    [CHAOS_OPTIMIZE] = {"optimize", "image"},
};

static int open_output(const struct chaos_chores *chores)
{
    char path[CHAOS_PATH + 8];
    if (chores->running != CHAOS_TRACE)
        return fcntl(chores->service->log_fd, F_DUPFD_CLOEXEC, 0);
    trace_path(chores, path);
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void start(struct chaos_chores *chores)
{
    const char *argv[CHORE_ARGS + 1] = {chores->service->program};
    chores->running = chores->next;
    memcpy(argv + 1, words[chores->running], sizeof(words[0]));
    int output = open_output(chores);
    pid_t pid = output < 0 ? -1 : chaos_spawn(argv, output);
    if (output >= 0)
        close(output);
    if (pid < 0) {
        perror("chaos: a chore");
        chores->bad = true;
        return;
    }
    chores->pid = pid;
    chores->began_ns = bench_now_ns();
    chores->kill_ns = 0;
    if (chores->running == CHAOS_RECORD_KILLED)
        chores->kill_ns =
            chores->began_ns + random_next(&chores->random) % ((uint64_t)KILL_WITHIN_MS * MS);
    chores->next = (chores->next + 1) % CHAOS_CHORES;
}

// --- ending ---

// Whatever was killed meanwhile, the trace may have only pages that a VM touched.
static bool is_true_trace(const struct chaos_chores *chores)
{
    size_t i;
    const json_t *page;
    char path[CHAOS_PATH + 8];
    bool good = true;
    trace_path(chores, path);
    json_t *trace = json_load_file(path, 0, NULL);
    const json_t *order = json_object_get(trace, "order");
    if (json_array_size(order) == 0)
        good = false;
    json_array_foreach(order, i, page)
    {
        if (json_integer_value(page) < (json_int_t)chores->touched)
            continue;
        fprintf(stderr, "chaos: page %lld is in the trace, but no VM touched it\n",
                (long long)json_integer_value(page));
        good = false;
        break;
    }
    json_decref(trace);
    return good;
}

// Commands that need the store only must succeed. The others fail while no engine serves.
static bool may_fail(enum chaos_chore chore)
{
    return chore != CHAOS_TRACE && chore != CHAOS_OPTIMIZE;
}

static void end(struct chaos_chores *chores, int status)
{
    enum chaos_chore chore = chores->running;
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    chores->pid = 0;
    if (chore == CHAOS_TRACE)
        good = good && is_true_trace(chores);
    if (chore == CHAOS_RECORD_KILLED)
        good = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    chores->done[chore] += good;
    chores->failed[chore] += !good;
    if (good || (may_fail(chore) && WIFEXITED(status)))
        return;
    fprintf(stderr, "chaos: `faultline %s` ended with wait status %d\n", words[chore][0], status);
    chores->bad = true;
}

static void watch(struct chaos_chores *chores)
{
    int status;
    uint64_t now = bench_now_ns();
    if (chores->kill_ns != 0 && now > chores->kill_ns) {
        kill(chores->pid, SIGKILL);
        chores->kill_ns = 0;
    }
    if (waitpid(chores->pid, &status, WNOHANG) == chores->pid) {
        end(chores, status);
    } else if (now - chores->began_ns > (uint64_t)PATIENCE_MS * MS) {
        fprintf(stderr, "chaos: `faultline %s` does not end\n", words[chores->running][0]);
        chores->bad = true;
    }
}

// --- all of them ---

void chaos_chores_start(struct chaos_chores *chores)
{
    chores->next = CHAOS_TEMPLATE;
    chores->on = true;
}

void chaos_chores_look(struct chaos_chores *chores)
{
    if (!chores->on || chores->bad)
        return;
    if (chores->pid != 0)
        watch(chores);
    else
        start(chores);
}

void chaos_chores_stop(struct chaos_chores *chores)
{
    chores->on = false;
    if (chores->pid == 0)
        return;
    kill(chores->pid, SIGKILL);
    waitpid(chores->pid, NULL, 0);
    chores->pid = 0;
}
