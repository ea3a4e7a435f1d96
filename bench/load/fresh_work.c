// SPDX-License-Identifier: Apache-2.0
//
// fresh_work: what a guest does that takes memory after its restore. Memory that its image knows as
// zeros, or that it gives back first, is written to, a whole page at a time, and it is measured how
// long that takes. Without a server the kernel alone gives the memory.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"
#include "bench/load/order.h"

#define PAGE 4096u
#define BLOCK (UINT64_C(2) << 20)

static const char *const order_names[] = {"up", "down", "blocks", "random", "sparse"};
enum order { UP, DOWN, BLOCKS, RANDOM, SPARSE, ORDERS };

// A slower touch had to wait for the server, or for the kernel to find a huge page.
enum { STALL_NS = 5000, SPARSE_ONE_IN = 64 };

struct work {
    unsigned char *memory;
    uint64_t bytes;
    enum order order;
    uint64_t stalls;
    uint64_t touched; // pages
};

static void fill_page(struct work *work, uint64_t at)
{
    uint64_t begun = bench_now_ns();
    memset(work->memory + at, (int)(at >> 12) | 1, PAGE);
    work->stalls += bench_now_ns() - begun > STALL_NS;
    work->touched++;
}

// As Linux clears a huge page: from its end to its beginning.
static void fill_down(struct work *work, uint64_t first, uint64_t end)
{
    for (uint64_t at = end; at > first; at -= PAGE)
        fill_page(work, at - PAGE);
}

static uint64_t *shuffled(uint64_t count)
{
    uint64_t state = 88172645463325252;
    uint64_t *number = malloc(count * sizeof(*number));
    for (uint64_t i = 0; number != NULL && i < count; i++) {
        uint64_t j = bench_random(&state) % (i + 1);
        number[i] = number[j];
        number[j] = i;
    }
    return number;
}

static void fill_in_order(struct work *work)
{
    if (work->order == DOWN)
        fill_down(work, 0, work->bytes);
    for (uint64_t at = 0; work->order == UP && at < work->bytes; at += PAGE)
        fill_page(work, at);
}

static int fill_shuffled(struct work *work)
{
    uint64_t size = work->order == BLOCKS ? BLOCK : PAGE;
    uint64_t count = work->bytes / size / (work->order == SPARSE ? SPARSE_ONE_IN : 1);
    uint64_t *number = shuffled(work->bytes / size);
    if (number == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++)
        fill_down(work, number[i] * size, (number[i] + 1) * size);
    free(number);
    return 0;
}

// The host's memory is taken first, so that it is warm for all: given back it is zeroed and free.
static void warm(uint64_t bytes)
{
    unsigned char *memory = bench_map(bytes, PAGE);
    if (memory == MAP_FAILED)
        return;
    memset(memory, 1, bytes);
    munmap(memory, bytes);
}

static int measure(struct work *work)
{
    uint64_t begun = bench_now_ns();
    int err = 0;
    if (work->order == UP || work->order == DOWN)
        fill_in_order(work);
    else
        err = fill_shuffled(work);
    if (err == 0)
        printf("{\"seconds\":%.6f,\"pages\":%" PRIu64 ",\"stalls\":%" PRIu64 "}\n",
               (double)(bench_now_ns() - begun) / 1e9, work->touched, work->stalls);
    return err;
}

static int run(const char *socket, bool removed, struct work *work)
{
    struct bench_guest guest = {.uffd = -1, .sock = -1, .bytes = work->bytes, .page_size = PAGE};
    int err = 0;
    if (socket != NULL)
        err = bench_guest_start(&guest, socket, work->bytes, PAGE);
    else if ((guest.base = bench_map(work->bytes, PAGE)) == MAP_FAILED)
        err = -ENOMEM;
    if (err < 0)
        return err;
    work->memory = guest.base;
    if (removed && madvise(work->memory, work->bytes, MADV_DONTNEED) < 0)
        err = -errno;
    if (err == 0)
        err = measure(work);
    fflush(stdout);
    getchar(); // the server's figures are read while the VM is there
    bench_guest_stop(&guest);
    return err;
}

static const char *take_order(void *to, const char *value)
{
    enum order *order = to;
    for (unsigned i = 0; i < ORDERS; i++) {
        if (strcmp(value, order_names[i]) == 0) {
            *order = (enum order)i;
            return NULL;
        }
    }
    return "is not an order";
}

int main(int argc, char **argv)
{
    struct work work = {.order = UP};
    const char *socket = NULL;
    bool removed = false;
    const struct bench_option options[] = {
        {.name = "socket",
         .value = "SOCKET",
         .text = &socket,
         .otherwise = "no server",
         .help = "of an image that is zeros"},
        {.name = "order",
         .value = "ORDER",
         .take = take_order,
         .to = &work.order,
         .otherwise = "up",
         .help = "up, down, blocks (of 2 MiB in a random order, each down), random, sparse (one "
                 "page in 64, in a random order)"},
        {.name = "removed", .flag = &removed, .help = "give all memory back before"},
        {.value = "SIZE", .large = &work.bytes, .low = BLOCK, .required = true, .help = "to fill"},
        BENCH_OPTIONS_END,
    };
    const struct bench_command command = {
        .program = "fresh_work",
        .about = "Fills memory as a guest does that works on after its restore. Prints how long "
                 "that took, and ends when standard input does.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    warm(work.bytes);
    int err = run(socket, removed, &work);
    if (err < 0)
        fprintf(stderr, "fresh_work: %s\n", strerror(-err));
    return err < 0;
}
