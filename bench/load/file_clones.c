// SPDX-License-Identifier: Apache-2.0
//
// file_clones: what VMs cost that map a memory file privately, or attach to a socket. Each VM is a
// process, all of them begin together, and each touches the pages of a recorded order and writes to
// some. The report says how long that took them, and how much memory they have while they live.
#include <errno.h>
#include <faultline_client.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"

enum { CLONES_MAX = 2000, GONE = 1 };

struct plan {
    bool is_file;
    const char *path;
    uint32_t clones;
    uint64_t bytes;
    const char *order;
    uint32_t written_percent;
};

struct result {
    double ms; // from the open, or the attach, to the last touch
    uint64_t faults;
    uint64_t sum; // of what it has read
};

struct clone {
    pid_t pid;
    int from; // its result
};

static struct plan plan;
static uint32_t *order;
static uint32_t touches;

static const char *set_how(void *to, const char *text)
{
    (void)to;
    plan.is_file = strcmp(text, "file") == 0;
    return plan.is_file || strcmp(text, "socket") == 0 ? NULL : "is neither file nor socket";
}

static const struct bench_option options[] = {
    {.value = "HOW",
     .take = set_how,
     .required = true,
     .help = "file: the VMs map PATH privately; socket: they attach to it"},
    {.value = "PATH", .text = &plan.path, .required = true, .help = "the file, or the socket"},
    {.value = "CLONES",
     .number = &plan.clones,
     .low = 1,
     .high = CLONES_MAX,
     .required = true,
     .help = "VMs, which begin together"},
    {.value = "BYTES",
     .large = &plan.bytes,
     .low = FL_CLIENT_PAGE,
     .required = true,
     .help = "memory of each, a multiple of 4K"},
    {.value = "ORDER",
     .text = &plan.order,
     .required = true,
     .help = "a file with the numbers of the pages that each touches, one a line"},
    {.value = "WRITTEN",
     .number = &plan.written_percent,
     .high = 100,
     .required = true,
     .help = "percent of these that each writes to"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "file_clones",
    .about = "Starts VMs that touch pages in a recorded order, all at once, and prints as JSON how "
             "long that took and how much memory they have.",
    .option = options,
};

static bool read_order(void)
{
    unsigned long page = 0;
    uint64_t pages = plan.bytes / FL_CLIENT_PAGE;
    FILE *file = fopen(plan.order, "re");
    order = calloc(pages, sizeof(*order));
    bool good = file && order;
    while (good && fscanf(file, "%lu%*[^\n]", &page) == 1) {
        good = touches < pages && page < pages;
        if (good)
            order[touches++] = (uint32_t)page;
    }
    good = good && touches > 0 && feof(file);
    if (file)
        fclose(file);
    return good;
}

// --- a clone ---

static int map_file(void **ret_memory)
{
    int fd = open(plan.path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_memory =
        mmap(NULL, plan.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    int error = *ret_memory == MAP_FAILED ? -errno : 0;
    close(fd);
    return error;
}

static uint64_t touch(volatile uint8_t *memory)
{
    uint64_t sum = 0;
    unsigned due = 0;
    for (uint32_t i = 0; i < touches; i++) {
        volatile uint8_t *page = memory + (uint64_t)order[i] * FL_CLIENT_PAGE;
        sum += *page;
        due += plan.written_percent;
        if (due < 100)
            continue;
        due -= 100;
        *page = (uint8_t)sum;
    }
    return sum;
}

// The process ends when its parent does, or when the pipe that it waits at last is closed.
static int run(int begin, int to, int end)
{
    char byte;
    struct rusage before;
    struct rusage after;
    struct result result = {0};
    struct fl_client *client = NULL;
    void *memory = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (write(to, &result, sizeof(result)) != (ssize_t)sizeof(result) || read(begin, &byte, 1) != 0)
        return GONE;
    getrusage(RUSAGE_SELF, &before);
    uint64_t start = bench_now_ns();
    int error = plan.is_file
                    ? map_file(&memory)
                    : fl_client_map(plan.path, plan.bytes, FL_CLIENT_PAGE, &client, &memory);
    if (error) {
        fprintf(stderr, "file_clones: %s: %s\n", plan.path, strerror(-error));
        return GONE;
    }
    result.sum = touch(memory);
    result.ms = (double)(bench_now_ns() - start) / 1e6;
    getrusage(RUSAGE_SELF, &after);
    result.faults =
        (uint64_t)(after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt);
    if (write(to, &result, sizeof(result)) != (ssize_t)sizeof(result))
        return GONE;
    return read(end, &byte, 1) == 0 ? 0 : GONE;
}

// --- all of them ---

// Adds to *sum the numbers behind `key` in a file of /proc/PID, in bytes.
static void add(pid_t pid, const char *name, const char *key, uint64_t *sum)
{
    char path[64];
    char line[256];
    unsigned long long kib = 0;
    size_t length = strlen(key);
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, length) == 0 && sscanf(line + length, "%llu", &kib) == 1)
            *sum += kib * 1024;
    }
    if (file)
        fclose(file);
}

static int by_size(const void *a, const void *b)
{
    double one = *(const double *)a;
    double two = *(const double *)b;
    return (one > two) - (one < two);
}

static void report(const struct clone *clones, const struct result *results, double wall_ms)
{
    static double ms[CLONES_MAX];
    uint64_t anonymous = 0;
    uint64_t tables = 0;
    uint64_t faults = 0;
    for (unsigned i = 0; i < plan.clones; i++) {
        ms[i] = results[i].ms;
        faults += results[i].faults;
        add(clones[i].pid, "smaps_rollup", "Pss_Anon:", &anonymous);
        add(clones[i].pid, "status", "VmPTE:", &tables);
    }
    qsort(ms, plan.clones, sizeof(ms[0]), by_size);
    printf("{\"how\":\"%s\",\"clones\":%u,\"bytes\":%" PRIu64 ",\"touched\":%" PRIu64
           ",\"written_percent\":%u,\"median_ms\":%.3f,\"wall_ms\":%.3f,\"faults\":%" PRIu64
           ",\"anonymous\":%" PRIu64 ",\"page_tables\":%" PRIu64 ",\"sum\":%" PRIu64 "}\n",
           plan.is_file ? "file" : "socket", plan.clones, plan.bytes,
           (uint64_t)touches * FL_CLIENT_PAGE, plan.written_percent, ms[plan.clones / 2], wall_ms,
           faults / plan.clones, anonymous, tables, results[0].sum);
    fflush(stdout);
}

static bool hear(const struct clone *clone, struct result *ret_result)
{
    return read(clone->from, ret_result, sizeof(*ret_result)) == (ssize_t)sizeof(*ret_result);
}

static bool start(struct clone *clone, const int begin[2], const int end[2])
{
    int pipe_of[2];
    struct result ready;
    if (pipe2(pipe_of, O_CLOEXEC) != 0)
        return false;
    clone->from = pipe_of[0];
    clone->pid = fork();
    if (clone->pid == 0) {
        close(begin[1]);
        close(end[1]);
        close(pipe_of[0]);
        _exit(run(begin[0], pipe_of[1], end[0]));
    }
    close(pipe_of[1]);
    return clone->pid > 0 && hear(clone, &ready);
}

static bool run_all(struct clone *clones, struct result *results, unsigned *ret_started)
{
    int begin[2];
    int end[2];
    bool good = pipe2(begin, O_CLOEXEC) == 0 && pipe2(end, O_CLOEXEC) == 0;
    while (good && *ret_started < plan.clones)
        good = start(&clones[(*ret_started)++], begin, end);
    uint64_t since = bench_now_ns();
    close(begin[1]);
    for (unsigned i = 0; good && i < plan.clones; i++)
        good = hear(&clones[i], &results[i]) && results[i].sum == results[0].sum;
    if (good)
        report(clones, results, (double)(bench_now_ns() - since) / 1e6);
    close(end[1]);
    return good;
}

int main(int argc, char **argv)
{
    static struct clone clones[CLONES_MAX];
    static struct result results[CLONES_MAX];
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (plan.bytes % FL_CLIENT_PAGE != 0)
        return bench_options_refuse(&command, "BYTES is a multiple of 4K");
    if (!read_order())
        return bench_options_refuse(&command, "%s has no order of pages of that memory",
                                    plan.order);
    unsigned started = 0;
    bool good = run_all(clones, results, &started);
    for (unsigned i = 0; i < started; i++) {
        status = 0;
        if (clones[i].pid > 0)
            good = waitpid(clones[i].pid, &status, 0) == clones[i].pid && status == 0 && good;
    }
    return good ? 0 : 1;
}
