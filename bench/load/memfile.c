// SPDX-License-Identifier: Apache-2.0
//
// memfile: makes a guest memory file for measurements of the fault path. Every page differs from
// every other, so that no page is cheaper because of deduplication or of a cache line. Half of each
// page is noise, so that it compresses to about a half, as program files do. It is not like a real
// guest's memory in any other way.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/options.h"
#include "bench/load/order.h"

#define PAGE 4096u

static void fill(uint64_t *words, uint64_t page, uint64_t *state)
{
    for (uint32_t i = 0; i < PAGE / sizeof(*words); i++)
        words[i] = i % 16 < 8 ? bench_random(state) : page;
}

static bool write_all(int fd, const void *buf, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t put = write(fd, (const char *)buf + done, size - done);
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

static bool make(int fd, uint64_t pages, uint64_t zero_percent)
{
    static uint64_t words[PAGE / sizeof(uint64_t)];
    uint64_t state = 1;
    for (uint64_t page = 0; page < pages; page++) {
        if (bench_random(&state) % 100 < zero_percent)
            memset(words, 0, sizeof(words));
        else
            fill(words, page, &state);
        if (!write_all(fd, words, sizeof(words)))
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static uint64_t bytes, zero_percent;
    static const char *file;
    static const struct bench_option options[] = {
        {.value = "SIZE",
         .large = &bytes,
         .required = true,
         .help = "of the file, a multiple of 4K"},
        {.value = "FILE", .text = &file, .required = true, .help = "is made, or replaced"},
        {.value = "PERCENT", .large = &zero_percent, .high = 100, .help = "of pages that are zero"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command command = {
        .program = "memfile",
        .about = "Makes a guest memory file in which every page differs from every other.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (bytes % PAGE != 0)
        return bench_options_refuse(&command, "SIZE is a multiple of 4K");
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || !make(fd, bytes / PAGE, zero_percent) || close(fd) < 0) {
        fprintf(stderr, "memfile: %s: %s\n", file, strerror(errno));
        return 1;
    }
    return 0;
}
