// SPDX-License-Identifier: Apache-2.0
#include "bench/order.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t bench_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static void shuffle(uint32_t *order, uint64_t count, uint64_t seed)
{
    // Spread small seeds over all bits; a state of 0 would stay 0.
    uint64_t state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t i = count; i > 1; i--) {
        uint64_t j = bench_random(&state) % i;
        uint32_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

static int read_recorded(const char *path, uint64_t pages, uint32_t *order, uint64_t *ret_count)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -errno;
    uint64_t count = 0;
    uint64_t page = 0;
    int got = 1;
    while (count < pages && (got = fscanf(file, "%" SCNu64, &page)) == 1 && page < pages)
        order[count++] = (uint32_t)page;
    fclose(file);
    if (count == 0 || got == 0 || (got == 1 && page >= pages))
        return -EINVAL;
    *ret_count = count;
    return 0;
}

int bench_order_make(const struct bench_options *options, uint64_t pages, uint64_t want,
                     uint64_t seed, uint32_t **ret_order, uint64_t *ret_count)
{
    uint32_t *order = calloc(pages, sizeof(*order));
    if (order == NULL)
        return -ENOMEM;
    uint64_t count = pages;
    if (options->order == BENCH_RECORDED) {
        int err = read_recorded(options->order_file, pages, order, &count);
        if (err < 0) {
            free(order);
            return err;
        }
    }
    for (uint64_t i = 0; i < pages && options->order != BENCH_RECORDED; i++)
        order[i] = (uint32_t)i;
    if (options->order == BENCH_RANDOM)
        shuffle(order, count, seed);
    *ret_order = order;
    *ret_count = count < want ? count : want;
    return 0;
}
