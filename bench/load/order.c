// SPDX-License-Identifier: Apache-2.0
#include "bench/load/order.h"

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

static void shuffle(struct bench_touch *order, uint64_t count, uint64_t seed)
{
    // Spreads small seeds over all bits. A state of 0 would stay 0.
    uint64_t state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t i = count; i > 1; i--) {
        uint64_t j = bench_random(&state) % i;
        struct bench_touch swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

// A line is "PAGE" or "PAGE MS".
static bool parse_line(const char *line, uint64_t pages, struct bench_touch *ret_touch)
{
    uint64_t page = 0;
    uint64_t ms = 0;
    char more;
    int got = sscanf(line, "%" SCNu64 " %" SCNu64 " %c", &page, &ms, &more);
    if ((got != 1 && got != 2) || page > pages || ms > UINT32_MAX)
        return false;
    *ret_touch = (struct bench_touch){.page = (uint32_t)page, .ms = (uint32_t)ms};
    return true;
}

static int read_lines(FILE *file, uint64_t pages, struct bench_touch *order, uint64_t *ret_count)
{
    char line[64];
    uint64_t count = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        struct bench_touch touch;
        if (!parse_line(line, pages, &touch))
            return -EINVAL;
        if (touch.page == pages)
            continue;
        if (count == pages)
            return -EINVAL;
        order[count++] = touch;
    }
    *ret_count = count;
    return count == 0 ? -EINVAL : 0;
}

static int read_recorded(const char *path, uint64_t pages, struct bench_touch *order,
                         uint64_t *ret_count)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -errno;
    int err = read_lines(file, pages, order, ret_count);
    fclose(file);
    return err;
}

int bench_order_make(const struct load_options *options, uint64_t pages, uint64_t want,
                     uint64_t seed, struct bench_touch **ret_order, uint64_t *ret_count)
{
    struct bench_touch *order = calloc(pages, sizeof(*order));
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
        order[i].page = (uint32_t)i;
    if (options->order == BENCH_RANDOM)
        shuffle(order, count, seed);
    *ret_order = order;
    *ret_count = count < want ? count : want;
    return 0;
}
