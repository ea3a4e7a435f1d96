// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/memory_samples.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/host/presence.h"
#include "engine/host/procfs.h"
#include "snapshot/read.h"

// The memory is cut into windows of the same size, and of each as many pages are looked at. So a
// small region is looked at as well as a large one, and one of which little is there as one that is
// full.
enum { PER_WINDOW = 16, WINDOWS = FL_SAMPLES_MAX / PER_WINDOW, RUNS = 256 };

struct taking {
    struct fl_presence presence;
    int memory; // /proc/PID/mem
    struct fl_presence_run run[RUNS];
    struct fl_samples *samples;
};

// Two lanes, so that one multiplication need not wait for the other.
uint64_t fl_sample_hash(const void *page)
{
    const uint64_t factor = 0x9e3779b97f4a7c15ULL;
    uint64_t lane[2] = {0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL};
    uint64_t word[2];
    for (size_t at = 0; at < FL_PAGE_SIZE; at += sizeof(word)) {
        memcpy(word, (const uint8_t *)page + at, sizeof(word));
        for (unsigned i = 0; i < 2; i++) {
            lane[i] = (lane[i] ^ word[i]) * factor;
            lane[i] ^= lane[i] >> 29;
        }
    }
    uint64_t hash = (lane[0] ^ (lane[1] << 32 | lane[1] >> 32)) * factor;
    return hash ^ hash >> 32;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, FL_PAGE_SIZE - 1) == 0;
}

// A page that has gone since, or was poisoned, cannot be read: there is no sample of it.
static int take_page(struct taking *taking, uint64_t address)
{
    uint8_t page[FL_PAGE_SIZE];
    ssize_t got = pread(taking->memory, page, sizeof(page), (off_t)address);
    if (got == 0)
        return -ESRCH; // its address space is gone
    if (got != (ssize_t)sizeof(page))
        return got < 0 && (errno == EPERM || errno == EACCES) ? -errno : 0;
    taking->samples->sample[taking->samples->count++] =
        (struct fl_sample){.address = address, .hash = fl_sample_hash(page), .zero = is_zero(page)};
    return 0;
}

// Page number `index` of those that are in the runs.
static uint64_t page_in_runs(const struct fl_presence_run *run, uint64_t index)
{
    uint64_t left = index * FL_PAGE_SIZE;
    while (left >= run->end - run->start) {
        left -= run->end - run->start;
        run++;
    }
    return run->start + left;
}

static int take_window(struct taking *taking, uint64_t start, uint64_t end)
{
    uint64_t looked = 0;
    uint64_t pages = 0;
    int runs = fl_presence_runs(&taking->presence, start, end, taking->run, RUNS, &looked);
    for (int i = 0; i < runs; i++)
        pages += (taking->run[i].end - taking->run[i].start) / FL_PAGE_SIZE;
    uint64_t wanted = pages < PER_WINDOW ? pages : PER_WINDOW;
    int error = runs < 0 ? runs : 0;
    for (uint64_t i = 0; i < wanted && !error; i++)
        error = take_page(taking, page_in_runs(taking->run, i * pages / wanted));
    return error;
}

static uint64_t window_bytes(const struct fl_proc_range *range, size_t ranges)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < ranges; i++)
        pages += range[i].bytes / FL_PAGE_SIZE;
    uint64_t window = pages / (WINDOWS / 2) + 1;
    return (window < PER_WINDOW ? PER_WINDOW : window) * FL_PAGE_SIZE;
}

// Each range ends in a window that is not full, so half of the windows are kept for those.
static int take_ranges(struct taking *taking, const struct fl_proc_range *range, size_t ranges)
{
    uint64_t window = window_bytes(range, ranges);
    int error = 0;
    for (size_t i = 0; i < ranges && !error; i++) {
        uint64_t end = range[i].start + range[i].bytes;
        for (uint64_t at = range[i].start; at < end && !error; at += window) {
            if (taking->samples->count + PER_WINDOW > FL_SAMPLES_MAX)
                return 0;
            error = take_window(taking, at, end - at < window ? end : at + window);
        }
    }
    return error;
}

static int open_memory(pid_t pid)
{
    char path[64];
    pid_t tid = pid;
    int error = fl_proc_live_task(pid, &tid);
    if (error)
        return error;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/mem", (int)pid, (int)tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int fl_samples_take(pid_t pid, int pidfd, const struct fl_proc_range *range, size_t ranges,
                    struct fl_samples *ret_samples)
{
    struct fl_samples samples = {.sample = calloc(FL_SAMPLES_MAX, sizeof(*samples.sample))};
    struct taking taking = {.memory = -1, .samples = &samples};
    if (!samples.sample)
        return -ENOMEM;
    int error = fl_presence_open(pid, pidfd, &taking.presence);
    if (!error) {
        taking.memory = open_memory(pid);
        error = taking.memory < 0 ? taking.memory : take_ranges(&taking, range, ranges);
        fl_presence_close(&taking.presence);
    }
    if (taking.memory >= 0)
        close(taking.memory);
    if (error)
        fl_samples_free(&samples);
    else
        *ret_samples = samples;
    return error;
}

void fl_samples_free(struct fl_samples *samples)
{
    free(samples->sample);
    *samples = (struct fl_samples){0};
}
