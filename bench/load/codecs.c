// SPDX-License-Identifier: Apache-2.0
//
// codecs: what each codec and level makes of a memory file: how small it becomes, how fast it is
// compressed, and how long a fault takes to decode the frame of its page. As the store does it,
// with checksums, in one thread and without a disk. Slow levels make a whole file take minutes, so
// pieces of 256 KiB are taken from all over it. Prints one JSON object on a line for each way in
// each round.
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
#include "snapshot/encoder.h"
#include "snapshot/frame.h"

static const struct way {
    struct fl_compression how;
    uint32_t pages; // of a frame
} ways[] = {
    {{FL_CODEC_LZ4, 1}, 16},   {{FL_CODEC_LZ4, 3}, 16},   {{FL_CODEC_LZ4, 9}, 16},
    {{FL_CODEC_LZ4, 12}, 16},  {{FL_CODEC_ZSTD, 1}, 16},  {{FL_CODEC_ZSTD, 3}, 16},
    {{FL_CODEC_ZSTD, 9}, 16},  {{FL_CODEC_ZSTD, 19}, 16}, {{FL_CODEC_ZSTD, 3}, 64},
    {{FL_CODEC_ZSTD, 19}, 64},
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]), PIECE = 64 }; // pages

struct frames {
    uint64_t count;
    struct fl_disk_frame *frame;
    uint8_t *stored;
    uint64_t bytes;
    double encode_seconds;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "codecs: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *room(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("no memory");
    return memory;
}

// Sets how many pages there are: those that are not zero, in whole pieces, at most `most` of them.
static uint8_t *load(const char *path, uint64_t most, uint64_t *ret_pages)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die(path);
    uint64_t pages = (uint64_t)st.st_size / FL_PAGE_SIZE;
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (pages == 0 || file == MAP_FAILED)
        die(path);
    uint8_t *all = room(pages * FL_PAGE_SIZE);
    uint64_t count = 0;
    for (uint64_t page = 0; page < pages; page++) {
        if (!fl_page_is_zero(file + page * FL_PAGE_SIZE))
            memcpy(all + count++ * FL_PAGE_SIZE, file + page * FL_PAGE_SIZE, FL_PAGE_SIZE);
    }
    close(fd);
    uint64_t pieces = count / PIECE;
    uint64_t kept = pieces < most / PIECE ? pieces : most / PIECE;
    if (kept == 0) {
        fprintf(stderr, "codecs: %s: fewer than %d pages are not zero\n", path, PIECE);
        exit(1);
    }
    for (uint64_t i = 0; i < kept; i++)
        memmove(all + i * PIECE * FL_PAGE_SIZE, all + i * pieces / kept * PIECE * FL_PAGE_SIZE,
                (size_t)PIECE * FL_PAGE_SIZE);
    *ret_pages = kept * PIECE;
    return all;
}

static void encode(const uint8_t *input, uint64_t pages, const struct way *way,
                   struct frames *frames)
{
    struct fl_encoder *encoder;
    size_t size = (size_t)way->pages * FL_PAGE_SIZE;
    frames->count = pages / way->pages;
    frames->frame = calloc(frames->count, sizeof(*frames->frame));
    frames->stored = room(pages * FL_PAGE_SIZE);
    if (!frames->frame || fl_encoder_new(way->how, &encoder) < 0)
        die("no memory");
    memset(frames->stored, 1, pages * FL_PAGE_SIZE); // so that no first touch is measured
    uint64_t start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t i = 0; i < frames->count; i++) {
        struct fl_disk_frame *frame = &frames->frame[i];
        fl_encode(encoder, input + i * size, way->pages, frames->stored + frames->bytes, frame);
        frame->offset = frames->bytes;
        frames->bytes += frame->stored;
    }
    frames->encode_seconds = (double)(bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
    fl_encoder_free(encoder);
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static uint64_t decode(const uint8_t *input, const struct way *way, const struct frames *frames,
                       uint64_t i, uint8_t *buf)
{
    size_t size = (size_t)way->pages * FL_PAGE_SIZE;
    uint64_t start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int r = fl_frame_decode(&frames->frame[i], frames->stored + frames->frame[i].offset, buf);
    uint64_t ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
    if (r < 0 || memcmp(buf, input + i * size, size) != 0) {
        fprintf(stderr, "codecs: a frame is not what it was\n");
        exit(1);
    }
    return ns;
}

static void measure(const uint8_t *input, const struct way *way, const struct frames *frames,
                    unsigned round)
{
    uint8_t *buf = room((uint64_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    uint64_t *ns = malloc(frames->count * sizeof(*ns));
    uint64_t all = 0;
    uint64_t raw = 0;
    if (!ns)
        die("no memory");
    memset(buf, 1, (size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    for (uint64_t i = 0; i < frames->count; i++) {
        ns[i] = decode(input, way, frames, i, buf);
        all += ns[i];
        raw += frames->frame[i].codec == FL_CODEC_RAW;
    }
    qsort(ns, frames->count, sizeof(*ns), compare);
    printf(
        "{\"part\":\"codecs\",\"round\":%u,\"codec\":\"%s\",\"level\":%u,\"frame_bytes\":%" PRIu64
        ",\"bytes\":%" PRIu64 ",\"stored\":%" PRIu64 ",\"frames\":%" PRIu64
        ",\"raw_frames\":%" PRIu64 ",\"encode_cpu_seconds\":%.6f,\"decode_cpu_seconds\":%.6f,"
        "\"decode_ns_p50\":%" PRIu64 ",\"decode_ns_p99\":%" PRIu64 "}\n",
        round, fl_codec_name(way->how.codec), way->how.level, (uint64_t)way->pages * FL_PAGE_SIZE,
        frames->count * way->pages * FL_PAGE_SIZE,
        frames->bytes + frames->count * sizeof(frames->frame[0]), frames->count, raw,
        frames->encode_seconds, (double)all / 1e9, ns[frames->count / 2],
        ns[frames->count - 1 - frames->count / 100]);
    free(ns);
    munmap(buf, (uint64_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
}

// From the command line.
static const char *file;
static uint32_t rounds = 5, mib = 32;
static const struct bench_option options[] = {
    {.value = "FILE", .text = &file, .required = true, .help = "a memory file"},
    {.value = "ROUNDS", .number = &rounds, .low = 1, .help = "each decodes with every codec"},
    {.value = "MIB", .number = &mib, .low = 1, .help = "so much of the file is taken at most"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "codecs",
    .about =
        "Compresses a memory file with each codec and several levels, as the store does, once, "
        "decodes it in each round, and prints one JSON object for each way in each round.",
    .option = options,
};

int main(int argc, char **argv)
{
    static struct frames frames[WAYS];
    uint64_t pages = 0;
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    const uint8_t *input = load(file, (uint64_t)mib * 256, &pages);
    for (unsigned i = 0; i < WAYS; i++)
        encode(input, pages, &ways[i], &frames[i]);
    for (unsigned round = 0; round < rounds; round++) {
        // Each way is measured first in some round.
        for (unsigned i = 0; i < WAYS; i++) {
            unsigned at = (round + i) % WAYS;
            measure(input, &ways[at], &frames[at], round);
        }
    }
    return 0;
}
