// SPDX-License-Identifier: Apache-2.0
//
// huge_guest: what pages of 2 MiB are worth to a VM. It attaches, and
//  - `writes`: once the server has done what it does ahead, writes a word to each aligned 2 MiB
//  that
//    it has not touched, and says how long such a write took;
//  - `reads`: once its working set is there, waits for pages of 2 MiB if they come, and reads words
//    all over its memory, each at a place that the one before says.
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"

enum { SMALL = 4096, RANGE = 2 << 20, READS = 4000000, POLL_NS = 5000000 };
#define NS_PER_S UINT64_C(1000000000)
#define AHEAD_NS (NS_PER_S / 2)  // for what comes ahead of writes
#define THERE_NS (60 * NS_PER_S) // for the working set
#define HUGE_NS (10 * NS_PER_S)  // for pages of 2 MiB behind that

static void pause_once(void)
{
    nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
}

// --- what is there ---

static uint64_t count_present(const struct bench_guest *guest)
{
    uint64_t count = 0;
    uint64_t pages = guest->bytes / SMALL;
    unsigned char *there = malloc(pages);
    if (!there || mincore(guest->base, guest->bytes, there) != 0)
        pages = 0;
    for (uint64_t i = 0; i < pages; i++)
        count += there[i] & 1;
    free(there);
    return count;
}

// Bytes of transparent pages of 2 MiB.
static uint64_t count_huge(const struct bench_guest *guest)
{
    char line[512];
    unsigned long start = 0;
    unsigned long end = 0;
    uint64_t kib = 0;
    uint64_t all = 0;
    uintptr_t base = (uintptr_t)guest->base;
    FILE *file = fopen("/proc/self/smaps", "re");
    while (file && fgets(line, sizeof(line), file)) {
        // No line of a key has a dash before its number; a key may begin as a number does.
        if (strchr(line, '-') && sscanf(line, "%lx-%lx ", &start, &end) == 2)
            continue;
        if (sscanf(line, "AnonHugePages: %" SCNu64, &kib) == 1 && start >= base &&
            start < base + guest->bytes)
            all += kib << 10;
    }
    if (file)
        fclose(file);
    return all;
}

// Until so many bytes are there, or the time is over; nanoseconds.
static uint64_t await(uint64_t (*count)(const struct bench_guest *guest),
                      const struct bench_guest *guest, uint64_t wanted, uint64_t patience_ns)
{
    uint64_t begun = bench_now_ns();
    while (count(guest) < wanted && bench_now_ns() - begun < patience_ns)
        pause_once();
    return bench_now_ns() - begun;
}

// --- writes ---

static unsigned char *first_range(const struct bench_guest *guest)
{
    uintptr_t base = (uintptr_t)guest->base;
    return guest->base + ((base + RANGE - 1) / RANGE * RANGE - base);
}

static uint64_t range_bytes(const struct bench_guest *guest)
{
    return (uint64_t)(guest->base + guest->bytes - first_range(guest)) / RANGE * RANGE;
}

static void write_all(const struct bench_guest *guest)
{
    const unsigned char *end = guest->base + guest->bytes;
    uint64_t ranges = 0;
    await(count_present, guest, UINT64_MAX, AHEAD_NS);
    uint64_t ahead = count_present(guest);
    uint64_t begun = bench_now_ns();
    for (unsigned char *at = first_range(guest); at + RANGE <= end; at += RANGE, ranges++)
        *(volatile uint64_t *)(void *)(at + RANGE / 2) = 1;
    double us = (double)(bench_now_ns() - begun) / 1e3;
    printf("{\"ranges\":%" PRIu64 ",\"ahead\":%" PRIu64 ",\"us\":%.2f}\n", ranges, ahead,
           us / (double)ranges);
}

// --- reads ---

static uint64_t mix(uint64_t x)
{
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

// Where to read next depends on what was read: no two reads overlap.
static double read_all_over(const struct bench_guest *guest)
{
    uint64_t words = guest->bytes / sizeof(uint64_t);
    const uint64_t *word = (const uint64_t *)(const void *)guest->base;
    uint64_t state = UINT64_C(88172645463325252);
    uint64_t begun = bench_now_ns();
    for (uint64_t i = 0; i < READS; i++) {
        uint64_t value = *(const volatile uint64_t *)&word[state % words];
        state = mix(state ^ (value & 1));
        state += state == 0;
    }
    return (double)(bench_now_ns() - begun) / READS;
}

static void read_all(const struct bench_guest *guest, bool wants_huge)
{
    uint64_t there_ns = await(count_present, guest, guest->bytes / SMALL * 99 / 100, THERE_NS);
    uint64_t huge_ns =
        wants_huge ? await(count_huge, guest, range_bytes(guest) * 95 / 100, HUGE_NS) : 0;
    double best = read_all_over(guest); // the first one also touches what is missing
    for (unsigned i = 0; i < 3; i++) {
        double ns = read_all_over(guest);
        best = ns < best ? ns : best;
    }
    printf("{\"there_ms\":%.1f,\"huge_ms\":%.1f,\"huge_bytes\":%" PRIu64 ",\"ns\":%.2f}\n",
           (double)there_ns / 1e6, (double)huge_ns / 1e6, count_huge(guest), best);
}

// --- the command ---

static int advice_of(const char *text)
{
    return strcmp(text, "huge") == 0    ? MADV_HUGEPAGE
           : strcmp(text, "small") == 0 ? MADV_NOHUGEPAGE
                                        : MADV_NORMAL;
}

int main(int argc, char **argv)
{
    struct bench_guest guest;
    const char *socket = NULL;
    const char *how = NULL;
    const char *advice = NULL;
    uint64_t bytes = 0;
    uint64_t page_size = 0;
    const struct bench_option options[] = {
        {.value = "SOCKET", .text = &socket, .required = true, .help = "of the image"},
        {.value = "SIZE", .large = &bytes, .low = RANGE, .required = true, .help = "of its memory"},
        {.value = "PAGE-SIZE",
         .large = &page_size,
         .low = SMALL,
         .required = true,
         .help = "4K or 2M"},
        {.value = "ADVICE", .text = &advice, .required = true, .help = "none, huge or small"},
        {.value = "HOW", .text = &how, .required = true, .help = "writes, reads or huge-reads"},
        BENCH_OPTIONS_END,
    };
    const struct bench_command command = {
        .program = "huge_guest",
        .about = "Measures first writes, or reads all over the memory, of a VM.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    int err = bench_guest_start_advised(&guest, socket, bytes, page_size, advice_of(advice));
    if (err < 0) {
        fprintf(stderr, "huge_guest: %s: %s\n", socket, strerror(-err));
        return 1;
    }
    if (strcmp(how, "writes") == 0)
        write_all(&guest);
    else
        read_all(&guest, strcmp(how, "huge-reads") == 0);
    bench_guest_stop(&guest);
    return 0;
}
