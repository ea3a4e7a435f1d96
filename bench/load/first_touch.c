// SPDX-License-Identifier: Apache-2.0
//
// first_touch: a VM that is restored as soon as it can be. It connects when the socket is there,
// touches pages in a random order, and says when the first of them was there and when all were, by
// the clock of mini_vmm and by that of the day.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"

enum { RETRY_NS = 100000 };
#define PATIENCE_NS (30 * UINT64_C(1000000000))

static int start(struct bench_guest *guest, const char *socket, uint64_t bytes, uint64_t page_size)
{
    uint64_t end = bench_now_ns() + PATIENCE_NS;
    int err;
    while ((err = bench_guest_start(guest, socket, bytes, page_size)) < 0 &&
           (err == -ENOENT || err == -ECONNREFUSED) && bench_now_ns() < end)
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    return err;
}

static void touch(const struct bench_guest *guest, uint64_t seed)
{
    uint64_t page = seed * UINT64_C(0x9e3779b97f4a7c15) >> 16;
    page %= guest->bytes / guest->page_size;
    (void)*(volatile unsigned char *)(guest->base + page * guest->page_size);
}

int main(int argc, char **argv)
{
    struct bench_guest guest;
    const char *socket = NULL;
    uint64_t bytes = 0;
    uint64_t pages = 0;
    uint64_t seed = 0;
    const struct bench_option options[] = {
        {.value = "SOCKET", .text = &socket, .required = true, .help = "of the image"},
        {.value = "SIZE", .large = &bytes, .low = 4096, .required = true, .help = "of its memory"},
        {.value = "PAGES", .large = &pages, .low = 1, .required = true, .help = "to be touched"},
        {.value = "SEED", .large = &seed, .required = true, .help = "of their order"},
        BENCH_OPTIONS_END,
    };
    const struct bench_command command = {
        .program = "first_touch",
        .about = "Restores a VM as soon as it can be, and says when its first page was there.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    int err = start(&guest, socket, bytes, 4096);
    if (err < 0) {
        fprintf(stderr, "first_touch: %s: %s\n", socket, strerror(-err));
        return 1;
    }
    touch(&guest, seed * pages + 1);
    uint64_t first_ns = bench_now_ns();
    uint64_t first_at = bench_clock_ns(CLOCK_REALTIME);
    for (uint64_t i = 1; i < pages; i++)
        touch(&guest, seed * pages + 1 + i);
    printf("{\"first_ns\":%" PRIu64 ",\"first_at\":%" PRIu64 ",\"all_ns\":%" PRIu64 "}\n", first_ns,
           first_at, bench_now_ns());
    bench_guest_stop(&guest);
    return 0;
}
