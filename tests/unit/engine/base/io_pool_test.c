// SPDX-License-Identifier: Apache-2.0
//
// Readers that sleep: a job wakes one of them, and not all.
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

enum { READERS = 6, JOBS = 100 };

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
