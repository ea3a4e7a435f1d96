// SPDX-License-Identifier: Apache-2.0
//
// loadgen: plays many VMs against a page-fault server and prints what they saw as one JSON object.
//
// The coordinator warms the machine's memory up, starts a process for each VM, lets all of them
// begin at one moment, and reads the server's CPU clock at the moment they begin and the moment the
// last one ends.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/clock.h"
#include "bench/guest.h"
#include "bench/size.h"
#include "bench/vm.h"

enum { SERVERS_MAX = 8, VMS_MAX = 4096, THREADS_MAX = 256 };

static const char usage[] =
    "usage: loadgen --socket PATH [OPTION...]\n"
    "  --vms N --threads N   VMs, and threads in each (1, 1)\n"
    "  --memory SIZE         memory of each VM (32M)\n"
    "  --page-size SIZE      4K or 2M (4K)\n"
    "  --touch PAGES         touch at most so many pages in each VM (all but one)\n"
    "  --order random|sequential|FILE   FILE: page numbers, one a line (random)\n"
    "  --shared              every thread touches every page, not its own share\n"
    "  --file MEMFILE --verify PAGES    compare so many pages of each VM afterwards\n"
    "  --seed N              of the random order (1)\n"
    "  --server-pid PID      add this process's CPU time to the report; up to 8\n"
    "  --hold                when all is printed, stay attached until standard input ends\n"
    "  --timeout SECONDS     give up, and kill the VMs (120)\n";

struct servers {
    uint32_t count;
    clockid_t clock[SERVERS_MAX];
};

struct run {
    struct bench_options options;
    struct servers servers;
    struct bench_board *board;
    pid_t *vm;
    uint64_t deadline_ns;
    uint64_t start_ns;
    uint64_t server_cpu_ns;
    uint64_t all_cpu_ns; // of every task of the machine; 0 if the kernel does not tell
};

enum {
    OPT_SOCKET = 1,
    OPT_VMS,
    OPT_THREADS,
    OPT_MEMORY,
    OPT_PAGE_SIZE,
    OPT_TOUCH,
    OPT_ORDER,
    OPT_SHARED,
    OPT_FILE,
    OPT_VERIFY,
    OPT_SEED,
    OPT_SERVER_PID,
    OPT_HOLD,
    OPT_TIMEOUT,
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"vms", required_argument, NULL, OPT_VMS},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"touch", required_argument, NULL, OPT_TOUCH},
    {"order", required_argument, NULL, OPT_ORDER},
    {"shared", no_argument, NULL, OPT_SHARED},
    {"file", required_argument, NULL, OPT_FILE},
    {"verify", required_argument, NULL, OPT_VERIFY},
    {"seed", required_argument, NULL, OPT_SEED},
    {"server-pid", required_argument, NULL, OPT_SERVER_PID},
    {"hold", no_argument, NULL, OPT_HOLD},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {NULL, 0, NULL, 0},
};

static void set_order(struct bench_options *options, const char *name)
{
    options->order = BENCH_RECORDED;
    if (strcmp(name, "random") == 0)
        options->order = BENCH_RANDOM;
    else if (strcmp(name, "sequential") == 0)
        options->order = BENCH_SEQUENTIAL;
    options->order_file = name;
}

static bool add_server(struct servers *servers, const char *text)
{
    uint64_t pid;
    if (servers->count == SERVERS_MAX || !bench_parse_size(text, &pid) || pid > INT32_MAX)
        return false;
    return clock_getcpuclockid((pid_t)pid, &servers->clock[servers->count]) == 0 &&
           ++servers->count;
}

static bool parse_count(const char *text, uint64_t max, uint32_t *ret_count)
{
    uint64_t value;
    if (!bench_parse_size(text, &value) || value == 0 || value > max)
        return false;
    *ret_count = (uint32_t)value;
    return true;
}

static bool set_option(struct run *run, int option, const char *value)
{
    struct bench_options *options = &run->options;
    switch (option) {
    case OPT_SOCKET:
        options->socket_path = value;
        return true;
    case OPT_VMS:
        return parse_count(value, VMS_MAX, &options->vms);
    case OPT_THREADS:
        return parse_count(value, THREADS_MAX, &options->threads);
    case OPT_MEMORY:
        return bench_parse_size(value, &options->bytes);
    case OPT_PAGE_SIZE:
        return bench_parse_size(value, &options->page_size);
    case OPT_TOUCH:
        return bench_parse_size(value, &options->touch);
    case OPT_ORDER:
        set_order(options, value);
        return true;
    case OPT_SHARED:
        return options->shared = true;
    case OPT_FILE:
        options->memory_file = value;
        return true;
    case OPT_VERIFY:
        return bench_parse_size(value, &options->verify);
    case OPT_SEED:
        return bench_parse_size(value, &options->seed);
    case OPT_SERVER_PID:
        return add_server(&run->servers, value);
    case OPT_HOLD:
        return options->hold = true;
    case OPT_TIMEOUT:
        return bench_parse_size(value, &options->timeout_s);
    default:
        return false;
    }
}

static bool consistent(const struct bench_options *options)
{
    uint64_t page = options->page_size;
    return options->socket_path != NULL && (page == 4096 || page == 2u << 20) &&
           options->bytes % page == 0 && options->bytes / page >= 2 &&
           options->bytes / page <= UINT32_MAX &&
           (options->verify == 0 || options->memory_file != NULL);
}

static bool parse_options(int argc, char **argv, struct run *run)
{
    run->options = (struct bench_options){
        .vms = 1,
        .threads = 1,
        .bytes = 32u << 20,
        .page_size = 4096,
        .touch = UINT64_MAX,
        .order = BENCH_RANDOM,
        .order_file = "random",
        .seed = 1,
        .timeout_s = 120,
    };
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (!set_option(run, option, optarg))
            return false;
    }
    return optind == argc && consistent(&run->options);
}

static uint64_t touched_bytes(const struct bench_options *options)
{
    uint64_t all = options->bytes / options->page_size;
    return (options->touch < all ? options->touch : all) * options->page_size;
}

// The first touch of memory that is new to a virtual machine costs more than the fault that is to
// be measured: have the host give it now, and give it back to the kernel that will take it again.
static int warm_up(const struct bench_options *options)
{
    uint64_t bytes = touched_bytes(options) * options->vms;
    if (bytes == 0)
        return 0;
    unsigned char *base = bench_map(bytes, options->page_size);
    if (base == MAP_FAILED)
        return -errno;
    madvise(base, bytes, MADV_NOHUGEPAGE); // small pages, as the VMs will get; no matter if refused
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
            // A VM must not outlive us: it would wait at the start line for ever.
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

// True if all VMs live. None may end before BENCH_RELEASE; one that has failed has said why.
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

static uint64_t server_cpu_ns(const struct servers *servers)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < servers->count; i++)
        sum += bench_clock_ns(servers->clock[i]);
    return sum;
}

// Time that all CPUs together were busy, or taken from us by the host. What of it was neither the
// server's nor ours disturbed the measurement. It comes in hundredths of a second: rough for a
// short run.
static uint64_t all_cpu_ns(void)
{
    uint64_t t[8] = {0}; // user nice system idle iowait irq softirq steal
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL)
        return 0;
    int got = fscanf(file,
                     "cpu %" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64
                     "%" SCNu64 "%" SCNu64,
                     &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
    fclose(file);
    return got == 8 ? (t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) * 10000000 : 0;
}

static bool measure(struct run *run)
{
    uint32_t threads = run->options.vms * run->options.threads;
    if (!await(run, &run->board->ready, threads, "attached"))
        return false;
    uint64_t all_ns = all_cpu_ns();
    uint64_t cpu_ns = server_cpu_ns(&run->servers);
    run->start_ns = bench_now_ns();
    bench_board_enter(run->board, BENCH_TOUCH);
    if (!await(run, &run->board->finished, threads, "touched their pages"))
        return false;
    run->server_cpu_ns = server_cpu_ns(&run->servers) - cpu_ns;
    run->all_cpu_ns = all_cpu_ns() - all_ns;
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
    const struct bench_options *options = &run->options;
    uint64_t touches = totals->latency.count;
    double seconds = (double)(totals->end_ns - run->start_ns) / 1e9;
    printf("{\"vms\":%u,\"threads\":%u,\"memory\":%" PRIu64 ",\"page_size\":%" PRIu64
           ",\"order\":\"%s\",\"shared\":%s,",
           options->vms, options->threads, options->bytes, options->page_size,
           orders[options->order], options->shared ? "true" : "false");
    printf("\"touches\":%" PRIu64 ",\"faults\":%" PRIu64
           ",\"seconds\":%.6f,\"touches_per_s\":%.0f,\"faults_per_s\":%.0f,",
           touches, totals->faults, seconds, touches == 0 ? 0 : (double)touches / seconds,
           totals->faults == 0 ? 0 : (double)totals->faults / seconds);
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

// True if every VM has ended as it should.
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
    const struct bench_options *options = &run->options;
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
    if (!parse_options(argc, argv, &run)) {
        fputs(usage, stderr);
        return 2;
    }
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
