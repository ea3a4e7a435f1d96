// SPDX-License-Identifier: Apache-2.0
//
// Readers that sleep: a job wakes one of them, and not all; none sleeps while a job waits. Jobs
// that wait for a time stay what they were.
#include <criterion/criterion.h>
#include <dirent.h>
#include <sched.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/io_pool.h"

enum { READERS = 6, JOBS = 100, ROUNDS = 500, WAIT_S = 30 };

struct errand {
    struct fl_io_job job;
    sem_t done;
};

static uint64_t run_errand(struct fl_io_job *job)
{
    sem_post(&caa_container_of(job, struct errand, job)->done);
    return 0;
}

// Of /proc/self/task/TID/status.
static long status_number(const char *status, const char *key)
{
    const char *at = strstr(status, key);
    return at ? strtol(at + strlen(key), NULL, 10) : 0;
}

// Reads the status of each reader: how often they have gone to sleep together; true in *ret_asleep
// if all sleep now.
static long reader_sleeps(bool *ret_asleep)
{
    long sum = 0;
    unsigned asleep = 0;
    DIR *tasks = opendir("/proc/self/task");
    cr_assert_not_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[64];
        char status[4096];
        snprintf(path, sizeof(path), "/proc/self/task/%.16s/status", entry->d_name);
        FILE *file = fopen(path, "re");
        size_t length = file ? fread(status, 1, sizeof(status) - 1, file) : 0;
        status[length] = '\0';
        if (file)
            fclose(file);
        if (!strstr(status, "Name:\tfl-reader\n"))
            continue;
        asleep += strstr(status, "State:\tS") != NULL;
        sum += status_number(status, "\nvoluntary_ctxt_switches:");
    }
    closedir(tasks);
    *ret_asleep = asleep == READERS;
    return sum;
}

static long sleeps_when_all_sleep(void)
{
    bool asleep = false;
    long sum = 0;
    for (;;) {
        sum = reader_sleeps(&asleep);
        if (asleep)
            return sum;
        sched_yield();
    }
}

Test(io_pool, a_job_wakes_one_reader, .timeout = 60)
{
    struct fl_io_pool *pool = NULL;
    struct errand errand = {.job.run = run_errand};
    sem_init(&errand.done, 0, 0);
    cr_assert_eq(fl_io_pool_start(READERS, &pool), 0);
    long before = sleeps_when_all_sleep();
    for (int i = 0; i < JOBS; i++) {
        fl_io_pool_submit(pool, &errand.job);
        sem_wait(&errand.done);
        sleeps_when_all_sleep();
    }
    long sleeps = sleeps_when_all_sleep() - before;
    cr_expect_geq(sleeps, JOBS);
    cr_expect_lt(sleeps, 3L * JOBS, "%d jobs woke readers %ld times", JOBS, sleeps);
    fl_io_pool_stop(pool);
    sem_destroy(&errand.done);
}

// A job that is to run later is waited for, and one that comes meanwhile is run at once.
Test(io_pool, a_reader_that_waits_for_a_time_takes_what_comes, .timeout = 60)
{
    struct fl_io_pool *pool = NULL;
    struct errand soon = {.job.run = run_errand};
    struct errand now = {.job.run = run_errand};
    sem_init(&soon.done, 0, 0);
    sem_init(&now.done, 0, 0);
    cr_assert_eq(fl_io_pool_start(1, &pool), 0);
    uint64_t when = fl_now() + 200 * FL_NS_PER_MS;
    fl_io_pool_submit_at(pool, &soon.job, when);
    fl_io_pool_submit(pool, &now.job);
    sem_wait(&now.done);
    sem_wait(&soon.done);
    cr_expect_geq(fl_now(), when);
    fl_io_pool_stop(pool);
    sem_destroy(&soon.done);
    sem_destroy(&now.done);
}

// --- a time that has come, and a job that comes at that moment ---

struct meeting {
    struct fl_io_job job;
    struct errand other; // that it waits for
    bool met;
    sem_t done;
};

static uint64_t run_meeting(struct fl_io_job *job)
{
    struct meeting *meeting = caa_container_of(job, struct meeting, job);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WAIT_S;
    meeting->met = sem_clockwait(&meeting->other.done, CLOCK_MONOTONIC, &until) == 0;
    sem_post(&meeting->done);
    return 0;
}

// The reader whose time has come may have had the wake of the job. It is away with the other one,
// for as long as it likes: the second reader has to take the job.
Test(io_pool, no_job_waits_for_one_that_is_delayed, .timeout = 120)
{
    struct fl_io_pool *pool = NULL;
    struct meeting meeting = {.job.run = run_meeting, .other.job.run = run_errand, .met = true};
    sem_init(&meeting.done, 0, 0);
    sem_init(&meeting.other.done, 0, 0);
    cr_assert_eq(fl_io_pool_start(2, &pool), 0);
    for (unsigned i = 0; i < ROUNDS && meeting.met; i++) {
        uint64_t when = fl_now() + 200 * FL_NS_PER_US;
        fl_io_pool_submit_at(pool, &meeting.job, when);
        while (fl_now() < when + i % 100 * FL_NS_PER_US) {
        }
        fl_io_pool_submit(pool, &meeting.other.job);
        sem_wait(&meeting.done);
        cr_expect(meeting.met, "in round %u a job waited, and a reader slept", i);
    }
    fl_io_pool_stop(pool);
    sem_destroy(&meeting.done);
    sem_destroy(&meeting.other.done);
}

// --- a job for later that pauses, and then goes on bit by bit ---

struct turns {
    struct fl_io_pool *pool;
    unsigned place;
    struct {
        struct fl_io_job job;
        unsigned runs;
        unsigned place; // of its end
    } slow;
    struct fl_io_job first; // wanted at once, and has the second one wanted
    struct fl_io_job second;
    unsigned second_place;
    sem_t done; // two of them
};

static uint64_t run_second(struct fl_io_job *job)
{
    struct turns *turns = caa_container_of(job, struct turns, second);
    turns->second_place = ++turns->place;
    sem_post(&turns->done);
    return 0;
}

static uint64_t run_first(struct fl_io_job *job)
{
    struct turns *turns = caa_container_of(job, struct turns, first);
    fl_io_pool_submit(turns->pool, &turns->second);
    return 0;
}

static uint64_t run_slow(struct fl_io_job *job)
{
    struct turns *turns = caa_container_of(job, struct turns, slow.job);
    switch (turns->slow.runs++) {
    case 0:
        return fl_now();
    case 1:
        fl_io_pool_submit(turns->pool, &turns->first);
        return FL_IO_YIELD;
    default:
        turns->slow.place = ++turns->place;
        sem_post(&turns->done);
        return 0;
    }
}

Test(io_pool, a_job_for_later_is_one_after_a_pause, .timeout = 60)
{
    struct turns turns = {
        .slow.job.run = run_slow, .first.run = run_first, .second.run = run_second};
    sem_init(&turns.done, 0, 0);
    cr_assert_eq(fl_io_pool_start(1, &turns.pool), 0);
    fl_io_pool_submit_later(turns.pool, &turns.slow.job);
    sem_wait(&turns.done);
    sem_wait(&turns.done);
    cr_expect_lt(turns.second_place, turns.slow.place, "it went before what is wanted at once");
    fl_io_pool_stop(turns.pool);
    sem_destroy(&turns.done);
}
