// SPDX-License-Identifier: Apache-2.0
//
// neighbour: measures the faults of a VM, the victim, while another VM of the same worker, its
// neighbour, is in trouble: at its memory limit with slow swap, killed, stopped or frozen. Programs
// and troubles alternate, so that other work on the machine disturbs all of them alike.
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/histogram.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"
#include "tests/resilience/neighbour_trouble.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"

enum { PROGRAMS = 2, ROUNDS_MOST = 64, VICTIM_MIB = 256, PAUSE_US = 500, WARM_MS = 500 };
#define MS 1000000u

struct result {
    uint64_t p50[ROUNDS_MOST];
    uint64_t p99[ROUNDS_MOST];
    uint64_t p999[ROUNDS_MOST];
    uint64_t max[ROUNDS_MOST];
    unsigned rounds;
    unsigned kills;
    unsigned deaths; // of engines
};

static struct {
    const char *program[PROGRAMS];
    unsigned programs;
    uint32_t rounds;
    uint32_t seconds;
    uint32_t memory_mib; // of the neighbour
    uint32_t swap_kib;   // a second
    uint64_t memory;     // the same in bytes
    uint64_t swap_rate;
    const char *only;
    const char *out;
    struct temp temp;
    struct result result[PROGRAMS][TROUBLES];
} bench = {.rounds = 5, .seconds = 5, .memory_mib = 2048, .swap_kib = 4096};

// --- the VM that is measured ---

struct victim {
    _Atomic uint64_t from_ns; // when measuring begins and ends; 0: not yet
    _Atomic uint64_t to_ns;
    _Atomic uint64_t waits_since_ns; // when the touch that goes on began; 0: no touch goes on
    struct bench_hist latency;
};

static int victim_main(struct victim *victim, const char *socket)
{
    struct bench_guest guest;
    uint64_t bytes = (uint64_t)VICTIM_MIB << 20;
    uint32_t *order = random_order((uint32_t)(bytes / PAGE), bench_now_ns());
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (bench_guest_start(&guest, socket, bytes, PAGE) != 0)
        return 1;
    for (uint32_t i = 0; i < bytes / PAGE; i++) {
        uint64_t start = bench_now_ns();
        atomic_store(&victim->waits_since_ns, start);
        (void)*(const volatile unsigned char *)(guest.base + (uint64_t)order[i] * PAGE);
        uint64_t end = bench_now_ns();
        uint64_t from = atomic_load(&victim->from_ns);
        uint64_t to = atomic_load(&victim->to_ns);
        if (from && end >= from && (!to || start < to))
            bench_hist_add(&victim->latency, end - start);
        atomic_store(&victim->waits_since_ns, 0);
        usleep(PAUSE_US);
    }
    pause();
    return 0;
}

// --- the server ---

static bool make_images(const char *store)
{
    struct memory memory;
    char output[512];
    struct image {
        const char *name;
        uint64_t bytes;
    } images[] = {{"victim", (uint64_t)VICTIM_MIB << 20}, {"neighbour", bench.memory}};
    for (unsigned i = 0; i < 2; i++) {
        const char *file = temp_path(&bench.temp, images[i].name);
        const char *args[] = {"pack", "--store", store, "--name", images[i].name, file, NULL};
        memory_make_distinct(&memory, file, (uint64_t)VICTIM_MIB << 20, i + 1);
        memory_free(&memory);
        // The neighbour's file repeats the same 256 MiB, so that the cache has them once.
        for (uint64_t at = (uint64_t)VICTIM_MIB << 20; at < images[i].bytes;
             at += (uint64_t)VICTIM_MIB << 20) {
            char command[1200];
            snprintf(command, sizeof(command),
                     "dd if=%s of=%s bs=1M count=%d seek=%llu conv=notrunc 2>/dev/null", file, file,
                     VICTIM_MIB, (unsigned long long)(at >> 20));
            if (system(command) != 0) // NOLINT(cert-env33-c)
                return false;
        }
        if (faultline_run(output, sizeof(output), args) != 0) {
            fprintf(stderr, "neighbour: %s\n", output);
            return false;
        }
        unlink(file);
    }
    return true;
}

static bool start_server(struct server *server, const char *program, const char *store)
{
    // Without prefetch each touch of the victim is a fault.
    static const char *const options[] = {"--workers", "1",  "--prefetch", "0",
                                          "--cache",   "2G", NULL};
    setenv("FAULTLINE_BIN", program, 1);
    return server_serve(server, &bench.temp, store, options) &&
           server_wait_log(server, "event=listen ", 2) &&
           server_wait_log(server, "event=engine_ready", 1);
}

// --- one measurement ---

static void wait_ms(struct trouble_now *trouble, uint64_t start, uint64_t ms)
{
    uint64_t until = bench_now_ns() + ms * MS;
    while (bench_now_ns() < until) {
        trouble_go_on(trouble, (bench_now_ns() - start) / MS);
        poll(NULL, 0, 5);
    }
}

static void note(struct result *result, const struct victim *victim)
{
    const struct bench_hist *hist = &victim->latency;
    unsigned round = result->rounds++;
    result->p50[round] = bench_hist_quantile(hist, 0.5);
    result->p99[round] = bench_hist_quantile(hist, 0.99);
    result->p999[round] = bench_hist_quantile(hist, 0.999);
    result->max[round] = hist->max_ns;
}

static bool measure(const char *program, struct result *result, enum trouble kind)
{
    struct server server = {0};
    struct trouble_now trouble = {0};
    const char *store = temp_path(&bench.temp, "store");
    struct victim *victim =
        mmap(NULL, sizeof(*victim), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (victim == MAP_FAILED || !start_server(&server, program, store))
        return false;
    pid_t pids[] = {server.pid, server_engine(&server)};
    struct trouble_options options = {
        .socket = temp_path(&bench.temp, "sockets/neighbour.sock"),
        .bytes = bench.memory,
        .swap_rate = bench.swap_rate,
        .dir = bench.temp.path,
    };
    bool good = trouble_prepare(&options, kind, pids, 2);
    pid_t pid = good ? fork() : -1;
    if (pid == 0)
        _exit(victim_main(victim, temp_path(&bench.temp, "sockets/victim.sock")));
    uint64_t start = bench_now_ns();
    good = good && pid > 0 && trouble_begin(&trouble, &options, kind);
    if (good) {
        wait_ms(&trouble, start, WARM_MS);
        atomic_store(&victim->from_ns, bench_now_ns());
        wait_ms(&trouble, start, bench.seconds * 1000);
        atomic_store(&victim->to_ns, bench_now_ns());
        for (unsigned i = 0; i < 30000 && atomic_load(&victim->waits_since_ns); i++)
            wait_ms(&trouble, start, 1);
        note(result, victim);
        result->kills += trouble.kills;
        result->deaths += server_count_log(&server, "event=engine_died");
        trouble_end(&trouble);
    }
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    server_kill(&server);
    trouble_give_back();
    munmap(victim, sizeof(*victim));
    return good;
}

// --- all of them ---

static bool wanted(enum trouble kind)
{
    return !bench.only || strstr(bench.only, trouble_key[kind]) != NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double median_us(const uint64_t *values, unsigned count)
{
    uint64_t sorted[ROUNDS_MOST];
    memcpy(sorted, values, count * sizeof(*values));
    qsort(sorted, count, sizeof(*sorted), compare);
    return count ? (double)sorted[count / 2] / 1000 : 0;
}

static void report(json_t *all)
{
    printf("| program | neighbour | p50 us | p99 us | p99.9 us | longest ms | engines died |\n"
           "| --- | --- | --- | --- | --- | --- | --- |\n");
    for (unsigned p = 0; p < bench.programs; p++) {
        for (enum trouble kind = 0; kind < TROUBLES; kind++) {
            const struct result *result = &bench.result[p][kind];
            if (!result->rounds)
                continue;
            double p50 = median_us(result->p50, result->rounds);
            double p99 = median_us(result->p99, result->rounds);
            double p999 = median_us(result->p999, result->rounds);
            double max = median_us(result->max, result->rounds) / 1000;
            printf("| %s | %s | %.0f | %.0f | %.0f | %.1f | %u |\n", bench.program[p],
                   trouble_key[kind], p50, p99, p999, max, result->deaths);
            json_array_append_new(all, json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:i, s:i}",
                                                 "program", bench.program[p], "neighbour",
                                                 trouble_key[kind], "rounds", (int)result->rounds,
                                                 "p50_us", p50, "p99_us", p99, "p999_us", p999,
                                                 "longest_ms", max, "killed", (int)result->kills,
                                                 "engines_died", (int)result->deaths));
        }
    }
}

static bool run(void)
{
    setenv("FAULTLINE_BIN", bench.program[0], 1);
    if (!make_images(temp_path(&bench.temp, "store")))
        return false;
    for (unsigned round = 0; round < bench.rounds; round++) {
        for (enum trouble kind = 0; kind < TROUBLES; kind++) {
            for (unsigned i = 0; i < bench.programs && wanted(kind); i++) {
                unsigned p = (i + round) % bench.programs;
                if (!measure(bench.program[p], &bench.result[p][kind], kind))
                    return false;
            }
        }
        fprintf(stderr, "neighbour: round %u of %u\n", round + 1, bench.rounds);
    }
    return true;
}

static const char *add_program(void *to, const char *text)
{
    (void)to;
    if (bench.programs == PROGRAMS)
        return "is one program too many";
    bench.program[bench.programs++] = text;
    return NULL;
}

static const struct bench_option table[] = {
    {.name = "program",
     .value = "PATH",
     .take = add_program,
     .required = true,
     .help = "the faultline command; given twice, two of them in turn"},
    {.name = "rounds",
     .value = "N",
     .number = &bench.rounds,
     .high = ROUNDS_MOST,
     .help = "rounds, each with every trouble"},
    {.name = "seconds",
     .value = "N",
     .number = &bench.seconds,
     .high = 86400,
     .help = "how long each is measured"},
    {.name = "memory",
     .value = "MIB",
     .number = &bench.memory_mib,
     .high = 1 << 20,
     .help = "memory of the neighbour"},
    {.name = "swap-rate",
     .value = "KIB",
     .number = &bench.swap_kib,
     .help = "KiB a second that the server may write to the neighbour's swap"},
    {.name = "only",
     .value = "KEY,KEY...",
     .text = &bench.only,
     .otherwise = "all",
     .help = "only these troubles of none, busy, limit, killed, stopped, frozen, madvise"},
    {.name = "out",
     .value = "FILE",
     .text = &bench.out,
     .otherwise = "not written",
     .help = "the figures as JSON"},
    BENCH_OPTIONS_END,
};

static const struct bench_command command = {
    .program = "neighbour",
    .about = "Measures a VM's faults while another VM of the same worker is in trouble. Takes "
             "root, cgroups of version 1 and a loop device.",
    .option = table,
};

int main(int argc, char **argv)
{
    int result = bench_options_parse(&command, argc, argv);
    if (result != BENCH_OPTIONS_GOOD)
        return result;
    bench.memory = (uint64_t)bench.memory_mib << 20;
    bench.swap_rate = (uint64_t)bench.swap_kib << 10;
    temp_make(&bench.temp);
    bool good = run();
    json_t *all = json_array();
    if (good)
        report(all);
    if (good && bench.out)
        json_dump_file(all, bench.out, JSON_INDENT(1));
    json_decref(all);
    temp_remove(&bench.temp);
    return good ? 0 : 1;
}
