// SPDX-License-Identifier: Apache-2.0
//
// frames: what other frame sizes would do to a memory file. It measures how small the file becomes,
// how long a fault takes to decode the frame of its page, and how fast all frames are decoded one
// after the other. It encodes and decodes as the store does, with checksums, in one thread and
// without a disk. Prints one JSON object on a line for each frame size in each round.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "snapshot/frame.h"
#include "snapshot/identity.h"

static const uint32_t sizes[] = {1, 4, 16, 64, 512}; // pages
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

// The pages that are not zero, one after the other. A packer stores these, if no two are equal.
struct input {
    uint8_t *pages;
    uint64_t count;
};

struct frames {
    uint32_t pages; // of one
    uint64_t count;
    struct fl_disk_frame *frame;
    uint8_t *stored;
    uint64_t stored_bytes;
    double encode_seconds;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "frames: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *room(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("no memory");
    return memory;
}

static void load(const char *path, struct input *input)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die(path);
    uint64_t pages = (uint64_t)st.st_size / FL_PAGE_SIZE;
    uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (pages == 0 || file == MAP_FAILED)
        die(path);
    input->pages = room(pages * FL_PAGE_SIZE);
    for (uint64_t page = 0; page < pages; page++) {
        if (!fl_page_is_zero(file + page * FL_PAGE_SIZE))
            memcpy(input->pages + input->count++ * FL_PAGE_SIZE, file + page * FL_PAGE_SIZE,
                   FL_PAGE_SIZE);
    }
    munmap(file, (size_t)st.st_size);
    close(fd);
    if (input->count < FL_FRAME_PAGES_MAX) {
        fprintf(stderr, "frames: %s: fewer than %u pages are not zero\n", path, FL_FRAME_PAGES_MAX);
        exit(1);
    }
}

// Whole frames only: a last one of fewer pages would be of another size.
static void encode(const struct input *input, struct frames *frames)
{
    size_t bytes = (size_t)frames->pages * FL_PAGE_SIZE;
    uint64_t start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    frames->stored_bytes = 0;
    for (uint64_t i = 0; i < frames->count; i++) {
        fl_frame_encode(input->pages + i * bytes, frames->pages,
                        frames->stored + frames->stored_bytes, &frames->frame[i]);
        frames->frame[i].offset = frames->stored_bytes;
        frames->stored_bytes += frames->frame[i].stored;
    }
    frames->encode_seconds = (double)(bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
}

static void decode(const struct frames *frames, uint64_t i, uint8_t *buf)
{
    if (fl_frame_decode(&frames->frame[i], frames->stored + frames->frame[i].offset, buf) < 0) {
        fprintf(stderr, "frames: a frame cannot be decoded\n");
        exit(1);
    }
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// Decodes `wanted` frames in random order and returns how many nanoseconds each took, sorted. The
// frames are not in a CPU cache, as far more of them exist than fit.
static uint64_t *decode_random(const struct frames *frames, unsigned samples, uint64_t seed,
                               uint8_t *buf)
{
    uint64_t *ns = malloc(samples * sizeof(*ns));
    if (!ns)
        die("no memory");
    for (unsigned i = 0; i < samples; i++) {
        uint64_t frame = next_random(&seed) % frames->count;
        uint64_t start = bench_now_ns();
        decode(frames, frame, buf);
        ns[i] = bench_now_ns() - start;
    }
    qsort(ns, samples, sizeof(*ns), compare);
    return ns;
}

static double decode_all(const struct frames *frames, uint8_t *buf)
{
    uint64_t start = bench_now_ns();
    for (uint64_t i = 0; i < frames->count; i++)
        decode(frames, i, buf);
    return (double)(bench_now_ns() - start) / 1e9;
}

static void measure(const struct input *input, struct frames *frames, unsigned samples,
                    unsigned round)
{
    uint8_t *buf = room((uint64_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    memset(buf, 1,
           (size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE); // so that no first touch is measured
    uint64_t bytes = frames->count * frames->pages * FL_PAGE_SIZE;
    encode(input, frames);
    uint64_t *ns = decode_random(frames, samples, round + 1, buf);
    double all = decode_all(frames, buf);
    printf("{\"part\":\"frames\",\"round\":%u,\"frame_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"stored\":%" PRIu64 ",\"encode_cpu_seconds\":%.6f,\"decode_ns_p50\":%" PRIu64
           ",\"decode_ns_p99\":%" PRIu64 ",\"sequential_seconds\":%.6f}\n",
           round, (uint64_t)frames->pages * FL_PAGE_SIZE, bytes,
           frames->stored_bytes + frames->count * sizeof(frames->frame[0]), frames->encode_seconds,
           ns[samples / 2], ns[samples - 1 - samples / 100], all);
    free(ns);
    munmap(buf, (uint64_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
}

// From the command line.
static const char *file;
static uint32_t rounds = 5, samples = 2000;
static const struct bench_option options[] = {
    {.value = "FILE", .text = &file, .required = true, .help = "a memory file"},
    {.value = "ROUNDS", .number = &rounds, .low = 1, .help = "each measures every frame size"},
    {.value = "SAMPLES",
     .number = &samples,
     .low = 1,
     .help = "frames that are decoded in random order"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "frames",
    .about = "Encodes and decodes a memory file in frames of several sizes, as the store does, "
             "and prints one JSON object for each size in each round.",
    .option = options,
};

int main(int argc, char **argv)
{
    struct input input = {.count = 0};
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    load(file, &input);
    uint8_t *stored = room(input.count * FL_PAGE_SIZE);
    struct fl_disk_frame *frame = calloc(input.count, sizeof(*frame));
    if (!frame)
        die("no memory");
    memset(stored, 1, input.count * FL_PAGE_SIZE);
    for (unsigned round = 0; round < rounds; round++) {
        // Each size is measured first in some round.
        for (unsigned i = 0; i < SIZES; i++) {
            uint32_t pages = sizes[(round + i) % SIZES];
            struct frames frames = {
                .pages = pages, .count = input.count / pages, .frame = frame, .stored = stored};
            measure(&input, &frames, samples, round);
        }
    }
    free(frame);
    munmap(stored, input.count * FL_PAGE_SIZE);
    return 0;
}
