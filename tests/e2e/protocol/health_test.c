// SPDX-License-Identifier: Apache-2.0
//
// What probes are told: /healthz, whether the server lives, and /readyz, whether it takes new VMs.
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"
#include "tests/support/files_world.h"
#include "tests/support/stop.h"

TestSuite(health, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

TestSuite(health_files, .init = need_fuse, .fini = files_close, .timeout = 240);

enum { IMAGE_BYTES = 1 << 20 };

static struct world *world;
static struct http_answer answer;
static char control[2 * TEST_PATH]; // temp_path() keeps few

static void begin(const char *const *options)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, options);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
}

static int ask(const char *path)
{
    return http_ask(control, &answer, "GET", path, "");
}

static bool says_not_ready(void *line)
{
    return ask("/readyz") == 503 && strncmp(answer.body, "not ready\n", 10) == 0 &&
           strstr(answer.body, line);
}

static bool says_ready(void *arg)
{
    (void)arg;
    return ask("/readyz") == 200 && strncmp(answer.body, "ready\n", 6) == 0 &&
           !strstr(answer.body, "missing");
}

#define NOT_READY(LINE) cr_assert(wait_until(says_not_ready, (void *)(LINE)), "%s", answer.text)
#define READY() cr_assert(wait_until(says_ready, NULL), "%s", answer.text)

static void move(const char *from, const char *to)
{
    char place[2 * TEST_PATH];
    snprintf(place, sizeof(place), "%s", temp_path(&world->temp, from));
    cr_assert_eq(rename(place, temp_path(&world->temp, to)), 0);
}

Test(health, a_server_without_store_is_not_ready_and_lives)
{
    begin(NULL);
    READY();
    move("store", "aside");
    NOT_READY("\nstore: missing: ");
    cr_assert_eq(ask("/healthz"), 200, "%s", answer.text);
    cr_assert_str_eq(answer.body, "ok\n");
    move("aside", "store");
    READY();
    world_stop(world);
}

static bool socket_is_gone(void *path)
{
    return access(path, F_OK) != 0;
}

Test(health, a_drained_server_is_not_ready_and_lives)
{
    begin(NULL);
    cr_assert_eq(http_ask(control, &answer, "POST", "/v1/drain", ""), 200);
    NOT_READY("\nservice: missing: it is drained");
    cr_assert_eq(ask("/healthz"), 200, "%s", answer.text);
    world_stop(world);
    cr_assert(wait_until(socket_is_gone, control));
}

// A new VM would be lost with its engine, and a stopped keeper accepts none.
Test(health, a_server_whose_keeper_is_stopped_or_gone_is_not_ready)
{
    begin(NULL);
    READY();
    cr_assert(process_stop(world->server.pid));
    NOT_READY("\nkeeper: missing: it is stopped");
    cr_assert_eq(kill(world->server.pid, SIGCONT), 0);
    READY();
    pid_t engine = server_engine(&world->server);
    server_kill_keeper(&world->server);
    NOT_READY("\nkeeper: missing: it has gone");
    cr_assert_eq(ask("/healthz"), 200, "%s", answer.text);
    cr_assert_eq(kill(engine, SIGTERM), 0);
    cr_assert(wait_until(process_ended, &engine));
}

// --- a worker that makes no progress ---

static pid_t find_thread(pid_t engine, const char *called)
{
    char path[64];
    char name[32] = "";
    pid_t found = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)engine);
    DIR *tasks = opendir(path);
    cr_assert_not_null(tasks);
    for (struct dirent *entry; !found && (entry = readdir(tasks)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)engine, entry->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file) && strncmp(name, called, strlen(called)) == 0)
            found = (pid_t)strtol(entry->d_name, NULL, 10);
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return found;
}

static bool is_not_live(void *arg)
{
    (void)arg;
    return ask("/healthz") == 503 && strstr(answer.body, "not live: a worker has not answered");
}

static bool is_live(void *arg)
{
    (void)arg;
    return ask("/healthz") == 200;
}

static void stop_worker(pid_t worker)
{
    cr_assert_eq(ptrace(PTRACE_SEIZE, worker, NULL, NULL), 0);
    cr_assert_eq(ptrace(PTRACE_INTERRUPT, worker, NULL, NULL), 0);
    cr_assert_eq(waitpid(worker, NULL, __WALL), worker);
}

// The keeper would kill it after 8 s, and it is said after 4.
Test(health, a_worker_that_makes_no_progress_is_seen)
{
    begin((const char *[]){"--hang-timeout", "8000", NULL});
    cr_assert_eq(ask("/healthz"), 200, "%s", answer.text);
    pid_t worker = find_thread(server_engine(&world->server), "fl-worker");
    cr_assert_gt(worker, 0, "no thread is called fl-worker");
    stop_worker(worker);
    cr_assert(wait_until(is_not_live, NULL), "%s", answer.text);
    cr_assert_eq(ptrace(PTRACE_DETACH, worker, NULL, NULL), 0);
    cr_assert(wait_until(is_live, NULL), "%s", answer.text);
    world_stop(world);
}

static bool files_are_not_live(void *arg)
{
    (void)arg;
    return ask("/healthz") == 503 &&
           strstr(answer.body, "not live: the thread of the files has not answered");
}

static bool is_another_engine(void *arg)
{
    pid_t engine = server_engine(&world->server);
    return engine > 0 && engine != *(pid_t *)arg;
}

// It is said, and then the keeper has another engine serve.
Test(health_files, a_thread_of_the_files_that_makes_no_progress_is_seen)
{
    world = files_make(MIXED, 1 << 20);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    files_serve(world, (const char *[]){"--hang-timeout", "6000", NULL});
    pid_t engine = server_engine(&world->server);
    pid_t thread = find_thread(engine, "fl-files");
    cr_assert_gt(thread, 0, "no thread is called fl-files");
    cr_assert_eq(ask("/healthz"), 200, "%s", answer.text); // those that sleep are asked from now on
    world->server.deaths = 1;
    stop_worker(thread);
    cr_assert(wait_until(files_are_not_live, NULL), "%s", answer.text);
    cr_assert_eq(waitpid(thread, NULL, __WALL), thread); // killed with its engine
    cr_assert(wait_until(is_another_engine, &engine));
    cr_assert(wait_until(is_live, NULL), "%s", answer.text);
    world_stop(world);
}

// Where no keeper asks, the probe does.
Test(health, a_worker_is_looked_at_without_a_keeper_too)
{
    begin((const char *[]){"--hang-timeout", "2000", NULL});
    pid_t engine = server_engine(&world->server);
    server_kill_keeper(&world->server);
    cr_assert(wait_until(is_live, NULL));
    pid_t worker = find_thread(engine, "fl-worker");
    stop_worker(worker);
    cr_assert(wait_until(is_not_live, NULL), "%s", answer.text);
    cr_assert_eq(ptrace(PTRACE_DETACH, worker, NULL, NULL), 0);
    cr_assert(wait_until(is_live, NULL), "%s", answer.text);
    cr_assert_eq(kill(engine, SIGTERM), 0);
    cr_assert(wait_until(process_ended, &engine));
}
