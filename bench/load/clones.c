// SPDX-License-Identifier: Apache-2.0
//
// clones: what N VMs of one image cost. Each VM is a process that reads every page of the image and
// then writes to some of them; the VMs run one after the other and then stay. The report says how
// long a page took in the first VM and in the others, and how much memory they use while all of
// them live.
#include <errno.h>
#include <faultline_client.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"

enum {
    STRIDE = 7919,
    CLONES_MAX = 4096
}; // a prime, so that its multiples are all pages, in an order without runs

struct plan {
    bool is_template;
    const char *socket;
    uint32_t clones;
    uint64_t bytes;
    uint32_t dirty_percent;
};

struct clone {
    pid_t pid;
    int channel; // the clone writes `us` to it, and ends when it closes
    double us;   // for each page
};

struct memory {
    uint64_t anonymous;
    uint64_t shared; // a proportional part of the shared pages
    uint64_t tables;
};

static int attach(const struct plan *plan, struct fl_client **ret_client, void **ret_memory)
{
    struct fl_client_region region = {.bytes = plan->bytes};
    if (!plan->is_template)
        return fl_client_map(plan->socket, plan->bytes, FL_CLIENT_PAGE, ret_client, ret_memory);
    int error = fl_client_map_template(plan->socket, &region, 1, ret_client);
    *ret_memory = region.address;
    return error;
}

static void use(const struct plan *plan, volatile uint8_t *memory, uint64_t pages, double *ret_us)
{
    uint64_t sum = 0;
    uint64_t page = 0;
    uint64_t start = bench_now_ns();
    for (uint64_t i = 0; i < pages; i++) {
        sum += memory[page * FL_CLIENT_PAGE];
        page = (page + STRIDE) % pages;
    }
    *ret_us = (double)(bench_now_ns() - start) / 1000 / (double)pages;
    uint64_t dirty = pages * plan->dirty_percent / 100;
    for (uint64_t i = 0; i < dirty; i++) {
        memory[page * FL_CLIENT_PAGE] = (uint8_t)sum;
        page = (page + STRIDE) % pages;
    }
}

// The body of a clone's process. The process ends when its parent does.
static int run(const struct plan *plan, int channel)
{
    struct fl_client *client = NULL;
    void *memory = NULL;
    double us = 0;
    char end = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int error = attach(plan, &client, &memory);
    if (error) {
        fprintf(stderr, "clones: %s: %s\n", plan->socket, strerror(-error));
        return 1;
    }
    use(plan, memory, plan->bytes / FL_CLIENT_PAGE, &us);
    if (write(channel, &us, sizeof(us)) != (ssize_t)sizeof(us))
        return 1;
    return read(channel, &end, 1) == 0 ? 0 : 1;
}

static bool start(const struct plan *plan, struct clone *clone)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    clone->channel = pair[0];
    clone->pid = fork();
    if (clone->pid < 0)
        return false;
    if (clone->pid == 0) {
        close(pair[0]);
        _exit(run(plan, pair[1]));
    }
    close(pair[1]);
    return read(clone->channel, &clone->us, sizeof(clone->us)) == (ssize_t)sizeof(clone->us);
}

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

static struct memory weigh(const struct clone *clones, unsigned count)
{
    struct memory memory = {0};
    for (unsigned i = 0; i < count; i++) {
        add(clones[i].pid, "smaps_rollup", "Pss_Anon:", &memory.anonymous);
        add(clones[i].pid, "smaps_rollup", "Pss_Shmem:", &memory.shared);
        add(clones[i].pid, "status", "VmPTE:", &memory.tables);
    }
    return memory;
}

static int by_number(const void *a, const void *b)
{
    double one = *(const double *)a;
    double two = *(const double *)b;
    return (one > two) - (one < two);
}

// The median over all clones but the first. With a single clone, the time of that one.
static double median_of_others(const struct clone *clones, unsigned count)
{
    static double us[CLONES_MAX];
    for (unsigned i = 1; i < count; i++)
        us[i - 1] = clones[i].us;
    if (count == 1)
        return clones[0].us;
    qsort(us, count - 1, sizeof(us[0]), by_number);
    return us[(count - 1) / 2];
}

static void report(const struct plan *plan, const struct clone *clones)
{
    struct memory memory = weigh(clones, plan->clones);
    printf("{\"how\":\"%s\",\"clones\":%u,\"bytes\":%" PRIu64 ",\"dirty_percent\":%u,"
           "\"first_us\":%.3f,\"others_us\":%.3f,\"anonymous\":%" PRIu64 ",\"shared\":%" PRIu64
           ",\"page_tables\":%" PRIu64 "}\n",
           plan->is_template ? "template" : "private", plan->clones, plan->bytes,
           plan->dirty_percent, clones[0].us, median_of_others(clones, plan->clones),
           memory.anonymous, memory.shared, memory.tables);
    fflush(stdout);
}

static struct plan plan;

static const char *set_how(void *to, const char *text)
{
    (void)to;
    plan.is_template = strcmp(text, "template") == 0;
    return plan.is_template || strcmp(text, "private") == 0 ? NULL
                                                            : "is neither template nor private";
}

static const struct bench_option options[] = {
    {.value = "HOW",
     .take = set_how,
     .required = true,
     .help = "template: the VMs map the image's template; private: each has pages of its own"},
    {.value = "SOCKET",
     .text = &plan.socket,
     .required = true,
     .help = "of the template or of the image"},
    {.value = "CLONES",
     .number = &plan.clones,
     .low = 1,
     .high = CLONES_MAX,
     .required = true,
     .help = "VMs"},
    {.value = "BYTES",
     .large = &plan.bytes,
     .low = FL_CLIENT_PAGE,
     .required = true,
     .help = "memory of each, a multiple of 4K"},
    {.value = "DIRTY",
     .number = &plan.dirty_percent,
     .high = 100,
     .required = true,
     .help = "percent of its pages that each writes to"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "clones",
    .about = "Starts VMs of one image that read all of it and write to a part, and prints as JSON "
             "how long a page took and how much memory they use.",
    .option = options,
};

static bool end_clones(struct clone *clones, unsigned started)
{
    bool good = true;
    for (unsigned i = 0; i < started; i++) {
        int status = 0;
        shutdown(clones[i].channel, SHUT_RDWR); // later clones have copies of the descriptor
        close(clones[i].channel);
        good = waitpid(clones[i].pid, &status, 0) == clones[i].pid && status == 0 && good;
    }
    return good;
}

int main(int argc, char **argv)
{
    static struct clone clones[CLONES_MAX];
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (plan.bytes % FL_CLIENT_PAGE != 0 || plan.bytes / FL_CLIENT_PAGE % STRIDE == 0)
        return bench_options_refuse(
            &command, "BYTES is a multiple of 4K, and in pages not one of %d", STRIDE);
    bool good = true;
    unsigned started = 0;
    while (good && started < plan.clones)
        good = start(&plan, &clones[started++]);
    if (good)
        report(&plan, clones);
    good = end_clones(clones, started) && good;
    return good ? 0 : 1;
}
