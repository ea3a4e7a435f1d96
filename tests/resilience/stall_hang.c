// SPDX-License-Identifier: Apache-2.0
//
// How the stall run makes read-ahead hang, and the trace that read-ahead needs.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "tests/resilience/stall.h"
#include "tests/support/server.h"

enum { RECORD_S = 60, TICK_US = 1000 };

// The cache is smaller than the image. Otherwise all frames would be in the cache, and none would
// be read ahead.
void stall_prepare_hanging(struct stall_run *run, const struct temp *temp)
{
    struct chaos_service *service = &run->service;
    unsigned count = 0;
    snprintf(run->gate, sizeof(run->gate), "%s/gate", temp->path);
    setenv("HANGING_DISK", run->gate, 1);
    setenv("LD_PRELOAD", run->options->hang, 1);
    while (service->args[count] != NULL)
        count++;
    service->args[count++] = "--cache";
    service->args[count] = "16M";
}

// Runs one sweeper, until `end` at most.
static bool sweep(const struct stall_run *run, uint64_t end)
{
    struct stall_plan plan = {.socket = run->service.socket, .pages = run->options->pages};
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        _exit(stall_sweeper_main(&plan));
    }
    while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
        if (bench_now_ns() > end)
            kill(pid, SIGKILL);
        usleep(TICK_US);
    }
    return pid > 0 && status == 0;
}

bool stall_record(struct stall_run *run)
{
    int status = -1;
    uint64_t end = bench_now_ns() + (uint64_t)RECORD_S * 1000000000;
    pid_t record = chaos_service_record(&run->service, "1", "60s");
    if (record < 0)
        return false;
    while (waitpid(record, &status, WNOHANG) == 0 && sweep(run, end) && bench_now_ns() < end) {
    }
    if (status == 0)
        return true;
    fprintf(stderr, "stall: the image could not be recorded\n");
    return false;
}

static void name_held(const struct stall_run *run, char path[CHAOS_PATH + 8])
{
    snprintf(path, CHAOS_PATH + 8, "%s.held", run->gate);
}

bool stall_shut(struct stall_run *run)
{
    char held[CHAOS_PATH + 8];
    name_held(run, held);
    unlink(held);
    int fd = open(run->gate, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "stall: %s: %s\n", run->gate, strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

bool stall_open(struct stall_run *run)
{
    char held[CHAOS_PATH + 8];
    name_held(run, held);
    if (unlink(run->gate) == 0 && access(held, F_OK) == 0)
        return true;
    fprintf(stderr, "stall: nothing was read ahead that could hang\n");
    return false;
}
