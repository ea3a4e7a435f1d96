// SPDX-License-Identifier: Apache-2.0
//
// loadgen: plays many VMs against a page-fault server and prints what they saw as one JSON object.
//
// The coordinator is this process. It touches and frees as much memory as the VMs will need, starts
// a process for each VM, lets all of them begin at one moment, and reads the server's CPU clock at
// that moment and when the last VM has finished.
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/machine.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"
#include "bench/load/loadgen_options.h"
#include "bench/load/order.h"
#include "bench/load/vm.h"

struct run {
    struct load_options options;
    struct bench_servers servers;
    struct bench_board *board;
    pid_t *vm;
    uint64_t deadline_ns;
    uint64_t server_cpu_ns;
    uint64_t all_cpu_ns; // of every task of the machine; 0 if the kernel does not tell
};

// Computes how many bytes all VMs together will touch.
static int count_touched(const struct load_options *options, uint64_t *ret_bytes)
{
    struct bench_touch *order = NULL;
    uint64_t count = 0;
    int err = bench_order_make(options, options->bytes / options->page_size - 1, options->touch,
                               options->seed, &order, &count);
    free(order);
    // One more: the page that is touched before the start.
    *ret_bytes = count == 0 ? 0 : (count + 1) * options->page_size * options->vms;
    return err;
}

// In a virtual machine the first touch of memory that the host has not given yet costs more than
// the fault that is measured. So this touches memory now, which makes the host give it, and frees
// it; the kernel then gives the same memory to the VMs.
static int warm_up(const struct load_options *options)
{
    uint64_t bytes = 0;
    int err = count_touched(options, &bytes);
    if (options->warm > 0)
        bytes = options->warm / options->page_size * options->page_size;
    if (err < 0 || bytes == 0 || options->mapped_file != NULL)
        return err;
    unsigned char *base = bench_map(bytes, options->page_size);
    if (base == MAP_FAILED)
        return -errno;
    madvise(base, bytes,
            MADV_NOHUGEPAGE); // the VMs get small pages, too; memory of huge pages refuses it
    for (uint64_t at = 0; at < bytes; at += options->page_size)
        *(volatile unsigned char *)(base + at) = 1;
    return munmap(base, bytes) < 0 ? -errno : 0;
}

static int start_vms(struct run *run)
{
    pid_t coordinator = getpid();
    for (uint32_t i = 0; i < run->options.vms; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return -errno;
        if (pid == 0) {
            // Without a coordinator a VM would wait at the start line for ever.
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(getppid() == coordinator ? bench_vm_main(&run->options, run->board, i) : 1);
        }
        run->vm[i] = pid;
    }
    return 0;
}

static void kill_vms(struct run *run)
{
    for (uint32_t i = 0; i < run->options.vms; i++) {
        if (run->vm[i] > 0)
            kill(run->vm[i], SIGKILL);
    }
    for (uint32_t i = 0; i < run->options.vms; i++) {
        if (run->vm[i] > 0)
            waitpid(run->vm[i], NULL, 0);
    }
}

// Returns true if all VMs live. No VM ends before BENCH_RELEASE unless it has failed and printed
// why.
static bool vms_live(struct run *run)
{
    for (uint32_t i = 0; i < run->options.vms; i++) {
        if (waitpid(run->vm[i], NULL, WNOHANG) == run->vm[i]) {
            run->vm[i] = 0;
            return false;
        }
    }
    return true;
}

static bool await(struct run *run, _Atomic uint32_t *counter, uint32_t all, const char *what)
{
    uint32_t seen;
    while ((seen = atomic_load(counter)) < all) {
        if (bench_now_ns() > run->deadline_ns) {
            fprintf(stderr, "loadgen: after %" PRIu64 " s %u of %u have %s: giving up\n",
                    run->options.timeout_s, seen, all, what);
            return false;
        }
        if (!vms_live(run))
            return false;
        bench_board_sleep(counter, seen);
    }
    return true;
}

static uint64_t server_cpu_ns(const struct bench_servers *servers)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < servers->count; i++)
        sum += bench_clock_ns(servers->clock[i]);
    return sum;
}

static bool measure(struct run *run)
{
    uint32_t threads = run->options.vms * run->options.threads;
    if (!await(run, &run->board->ready, threads, "come to the start"))
        return false;
    uint64_t all_ns = bench_machine_busy_ns();
    uint64_t cpu_ns = server_cpu_ns(&run->servers);
    run->board->start_ns = bench_now_ns();
    bench_board_enter(run->board, BENCH_TOUCH);
    if (!await(run, &run->board->finished, threads, "touched their pages"))
        return false;
    run->server_cpu_ns = server_cpu_ns(&run->servers) - cpu_ns;
    run->all_cpu_ns = bench_machine_busy_ns() - all_ns;
    bench_board_enter(run->board, BENCH_VERIFY);
    return await(run, &run->board->verified, run->options.vms, "compared their pages");
}

struct totals {
    struct bench_hist latency;
    uint64_t faults;
    uint64_t cpu_ns;
    uint64_t end_ns;
};

static void sum_up(const struct run *run, struct totals *totals)
{
    for (uint32_t i = 0; i < run->options.vms * run->options.threads; i++) {
        const struct bench_thread_result *result = &run->board->thread[i];
        bench_hist_merge(&totals->latency, &result->latency);
        totals->faults += result->faults;
        totals->cpu_ns += result->cpu_ns;
        if (result->end_ns > totals->end_ns)
            totals->end_ns = result->end_ns;
    }
}

// One VM's result: when all its threads had touched their pages, and the sum of all their waits.
struct outcome {
    double whole_set_ms;
    double stall_ms;
};

static struct outcome outcome_of(const struct run *run, uint32_t vm)
{
    const struct bench_thread_result *result = &run->board->thread[vm * run->options.threads];
    uint64_t end_ns = run->board->start_ns;
    uint64_t stall_ns = 0;
    for (uint32_t i = 0; i < run->options.threads; i++) {
        stall_ns += result[i].latency.sum_ns;
        if (result[i].end_ns > end_ns)
            end_ns = result[i].end_ns;
    }
    return (struct outcome){
        .whole_set_ms = (double)(end_ns - run->board->start_ns) / 1e6,
        .stall_ms = (double)stall_ns / 1e6,
    };
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static void print_spread(const char *name, double *of_vm, uint32_t vms)
{
    qsort(of_vm, vms, sizeof(*of_vm), compare);
    printf("\"%s\":{\"median\":%.3f,\"max\":%.3f},", name, of_vm[vms / 2], of_vm[vms - 1]);
}

static void print_vms(const struct run *run)
{
    static double whole_set_ms[BENCH_VMS_MAX];
    static double stall_ms[BENCH_VMS_MAX];
    for (uint32_t i = 0; i < run->options.vms; i++) {
        struct outcome outcome = outcome_of(run, i);
        whole_set_ms[i] = outcome.whole_set_ms;
        stall_ms[i] = outcome.stall_ms;
    }
    print_spread("whole_set_ms", whole_set_ms, run->options.vms);
    print_spread("stall_ms", stall_ms, run->options.vms);
}

static double per(double what, uint64_t count)
{
    return count == 0 ? 0 : what / (double)count;
}

static void print_latency(const struct bench_hist *hist)
{
    printf("\"latency_us\":{\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p99.9\":%.2f,"
           "\"max\":%.2f},",
           per((double)hist->sum_ns / 1e3, hist->count),
           (double)bench_hist_quantile(hist, .5) / 1e3, (double)bench_hist_quantile(hist, .9) / 1e3,
           (double)bench_hist_quantile(hist, .99) / 1e3,
           (double)bench_hist_quantile(hist, .999) / 1e3, (double)hist->max_ns / 1e3);
}

static void print_report(const struct run *run, const struct totals *totals)
{
    static const char *const orders[] = {"sequential", "random", "recorded"};
    const struct load_options *options = &run->options;
    uint64_t touches = totals->latency.count;
    double seconds = (double)(totals->end_ns - run->board->start_ns) / 1e9;
    printf("{\"vms\":%u,\"threads\":%u,\"memory\":%" PRIu64 ",\"page_size\":%" PRIu64
           ",\"order\":\"%s\",\"shared\":%s,\"restore\":%s,\"paced\":%s,",
           options->vms, options->threads, options->bytes, options->page_size,
           orders[options->order], options->shared ? "true" : "false",
           options->restore ? "true" : "false", options->paced ? "true" : "false");
    printf("\"touches\":%" PRIu64 ",\"faults\":%" PRIu64
           ",\"seconds\":%.6f,\"touches_per_s\":%.0f,\"faults_per_s\":%.0f,",
           touches, totals->faults, seconds, touches == 0 ? 0 : (double)touches / seconds,
           totals->faults == 0 ? 0 : (double)totals->faults / seconds);
    print_vms(run);
    print_latency(&totals->latency);
    if (run->servers.count > 0)
        printf("\"server_cpu_us_per_touch\":%.3f,", per((double)run->server_cpu_ns / 1e3, touches));
    double others = (double)run->all_cpu_ns - (double)run->server_cpu_ns - (double)totals->cpu_ns;
    if (run->servers.count > 0 && run->all_cpu_ns > 0)
        printf("\"others_cpu_percent\":%.1f,", others / seconds / 1e7);
    printf("\"client_cpu_us_per_touch\":%.3f,\"pages_compared\":%" PRIu64
           ",\"pages_wrong\":%" PRIu64 "}\n",
           per((double)totals->cpu_ns / 1e3, touches), atomic_load(&run->board->pages_compared),
           atomic_load(&run->board->pages_wrong));
    fflush(stdout);
}

static void hold(void)
{
    while (getchar() != EOF)
        continue;
}

// Lets the VMs end. Returns true if every exit status is 0.
static bool release_vms(struct run *run)
{
    bool good = true;
    bench_board_enter(run->board, BENCH_RELEASE);
    for (uint32_t i = 0; i < run->options.vms; i++) {
        int status;
        if (waitpid(run->vm[i], &status, 0) != run->vm[i] || status != 0)
            good = false;
        run->vm[i] = 0;
    }
    return good;
}

static int prepare(struct run *run)
{
    const struct load_options *options = &run->options;
    size_t size =
        sizeof(*run->board) + sizeof(run->board->thread[0]) * options->vms * options->threads;
    run->board = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    run->vm = calloc(options->vms, sizeof(*run->vm));
    if (run->board == MAP_FAILED || run->vm == NULL)
        return -ENOMEM;
    run->deadline_ns = bench_now_ns() + options->timeout_s * 1000000000u;
    int err = warm_up(options);
    return err < 0 ? err : start_vms(run);
}

int main(int argc, char **argv)
{
    static struct run run;
    static struct totals totals;
    int status = loadgen_options_parse(argc, argv, &run.options, &run.servers);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    int err = prepare(&run);
    if (err < 0)
        fprintf(stderr, "loadgen: cannot start %u VMs of %" PRIu64 " bytes: %s\n", run.options.vms,
                run.options.bytes, strerror(-err));
    bool good = err == 0 && measure(&run);
    if (good) {
        sum_up(&run, &totals);
        print_report(&run, &totals);
        if (run.options.hold)
            hold();
        good = release_vms(&run) && atomic_load(&run.board->pages_wrong) == 0;
    }
    if (run.vm != NULL)
        kill_vms(&run);
    free(run.vm);
    return good ? 0 : 1;
}
