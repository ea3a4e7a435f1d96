// SPDX-License-Identifier: Apache-2.0
//
// store_chain: what the store costs a chain of checkpoints, without a VM and without an engine. The
// first image has all of a memory, and each that follows what was written to since.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/common/options.h"
#include "bench/load/order.h"
#include "snapshot/store.h"

enum { NAME_BYTES = 32, WORDS = FL_PAGE_SIZE / sizeof(uint64_t) };
// Odd, so that its multiples are all pages of a memory of 2^n pages, in an order without runs.
enum { STRIDE = 7919 };

struct chain {
    struct fl_store *store;
    int memory_fd;
    uint64_t *memory;
    uint64_t pages;
    bool *written; // of each page: since the last image
    uint64_t writes;
    uint64_t state;
};

// --- the memory ---

static void fill(struct chain *chain)
{
    for (uint64_t page = 0; page < chain->pages; page++) {
        uint64_t *words = chain->memory + page * WORDS;
        for (uint32_t i = 0; i < WORDS; i++)
            words[i] = i % 16 < 8 ? bench_random(&chain->state) : page;
        chain->written[page] = true;
    }
}

// Writes to `count` pages: to the same ones each time, or each time to others.
static void change(struct chain *chain, uint64_t count, bool moving)
{
    memset(chain->written, 0, chain->pages * sizeof(chain->written[0]));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = (moving ? bench_random(&chain->state) : i * STRIDE) % chain->pages;
        chain->memory[page * WORDS] = ++chain->writes;
        chain->written[page] = true;
    }
}

static int all_is_there(void *arg, uint64_t first, uint64_t count)
{
    (void)arg;
    (void)first;
    (void)count;
    return 0;
}

static bool ready(void *arg, uint64_t first, uint64_t count)
{
    return all_is_there(arg, first, count) == 0;
}

static enum fl_live_page kind(void *arg, uint64_t page)
{
    const struct chain *chain = arg;
    return chain->written[page] ? FL_LIVE_DATA : FL_LIVE_PARENT;
}

static void ignore(void *arg, uint64_t first, uint64_t count)
{
    (void)arg;
    (void)first;
    (void)count;
}

// --- measuring ---

static double cpu_of(int who)
{
    struct rusage used;
    getrusage(who, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

// The children are those that have the index.
static double cpu(void)
{
    return cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN);
}

static void print_layout(const struct fl_image_detail *detail)
{
    printf(",\"packs\":%" PRIu64 ",\"frames\":%" PRIu64 ",\"frame_pages\":%" PRIu64
           ",\"range_frames\":%.1f,\"range_frames_max\":%" PRIu64,
           detail->info.packs, detail->frames, detail->frame_pages,
           (double)detail->range_frames / (double)detail->ranges, detail->range_frames_max);
}

static void print_packed(unsigned number, double used, const struct fl_pack_result *result)
{
    printf("{\"number\":%u,\"cpu_s\":%.4f,\"seconds\":%.4f,\"settle_ms\":%.2f"
           ",\"stored_pages\":%" PRIu64 ",\"declined_pages\":%" PRIu64 ",\"bytes\":%" PRIu64,
           number, used, result->seconds, result->settle_seconds * 1e3, result->stored_pages,
           result->declined_pages, result->stored_bytes + result->image_bytes);
}

static int pack(struct chain *chain, unsigned number, uint8_t content_id[32], bool layout)
{
    char name[NAME_BYTES];
    char parent[NAME_BYTES];
    struct fl_pack_result result;
    struct fl_image_detail detail;
    struct fl_error error = {""};
    struct fl_pack_live live = {.buffer_fd = chain->memory_fd,
                                .bytes = chain->pages * FL_PAGE_SIZE,
                                .await = all_is_there,
                                .ready = ready,
                                .page = kind,
                                .consumed = ignore,
                                .arg = chain,
                                .parent = number > 1 ? parent : NULL,
                                .parent_content_id = number > 1 ? content_id : NULL};
    const struct fl_pack_options options = {.name = name, .live = &live};
    snprintf(name, sizeof(name), "image-%u", number);
    snprintf(parent, sizeof(parent), "image-%u", number - 1);
    double before = cpu();
    int r = fl_store_pack(chain->store, &options, &result, &error);
    double used = cpu() - before;
    if (r == 0 && layout)
        r = fl_store_inspect(chain->store, name, &detail, &error);
    if (r < 0) {
        fprintf(stderr, "store_chain: %s\n", error.text);
        return r;
    }
    memcpy(content_id, result.content_id, sizeof(result.content_id));
    print_packed(number, used, &result);
    if (layout)
        print_layout(&detail);
    printf("}\n");
    fflush(stdout);
    return 0;
}

static int unpack(struct chain *chain, unsigned number, const char *to)
{
    char name[NAME_BYTES];
    struct fl_unpack_result result;
    struct fl_error error = {""};
    const struct fl_unpack_options options = {.name = name, .path = to, .force = true};
    snprintf(name, sizeof(name), "image-%u", number);
    double before = cpu();
    int r = fl_store_unpack(chain->store, &options, &result, &error);
    if (r < 0)
        fprintf(stderr, "store_chain: %s\n", error.text);
    else
        printf("{\"unpacked\":%u,\"cpu_s\":%.4f,\"seconds\":%.4f}\n", number, cpu() - before,
               result.seconds);
    unlink(to);
    return r;
}

struct order {
    uint64_t changed; // pages between two images
    uint32_t images, unpacks;
    bool moving, layout;
    const char *to;
};

static int run(struct chain *chain, const struct order *order)
{
    uint8_t content_id[32];
    int r = 0;
    fill(chain);
    for (unsigned number = 1; r == 0 && number <= order->images; number++) {
        r = pack(chain, number, content_id, order->layout);
        change(chain, order->changed, order->moving);
    }
    for (unsigned i = 0; r == 0 && i < order->unpacks; i++) {
        r = unpack(chain, 1, order->to);
        if (r == 0)
            r = unpack(chain, order->images, order->to);
    }
    return r;
}

static int make_memory(struct chain *chain, uint64_t bytes)
{
    chain->state = 1;
    chain->pages = bytes / FL_PAGE_SIZE;
    chain->written = calloc(chain->pages, sizeof(chain->written[0]));
    chain->memory_fd = memfd_create("store_chain", MFD_CLOEXEC);
    if (!chain->written || chain->memory_fd < 0 || ftruncate(chain->memory_fd, (off_t)bytes) < 0)
        return -1;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, chain->memory_fd, 0);
    chain->memory = memory;
    return memory == MAP_FAILED ? -1 : 0;
}

int main(int argc, char **argv)
{
    static uint64_t bytes = UINT64_C(1) << 30;
    static struct order order = {.images = 10};
    static uint32_t permille = 10;
    static const char *dir;
    static const struct bench_option options[] = {
        {.name = "memory", .value = "SIZE", .large = &bytes, .low = 1u << 20, .help = "packed"},
        {.name = "images", .value = "N", .number = &order.images, .low = 1, .help = "in the chain"},
        {.name = "permille",
         .value = "N",
         .number = &permille,
         .high = 1000,
         .help = "of the pages that are written to between two images"},
        {.name = "moving", .flag = &order.moving, .help = "other pages each time, drawn at random"},
        {.name = "layout", .flag = &order.layout, .help = "tells what an image is made of"},
        {.name = "unpacks",
         .value = "N",
         .number = &order.unpacks,
         .help = "unpack the first and the last image N times, in turns"},
        {.value = "STORE", .text = &dir, .required = true, .help = "is made if it is missing"},
        {.value = "FILE",
         .text = &order.to,
         .required = true,
         .help = "to unpack to; is removed again"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command command = {
        .program = "store_chain",
        .about = "Measures what the store costs a chain of checkpoints: packs a memory, and again "
                 "and again what was written to since. Prints a line of JSON for each image: the "
                 "CPU time, the time from the last page to the image, and how it is laid out.",
        .option = options,
    };
    struct chain chain = {.memory_fd = -1};
    struct fl_error error = {""};
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (make_memory(&chain, bytes) < 0) {
        perror("store_chain: no memory");
        return 1;
    }
    if (fl_store_open(dir, true, &chain.store, &error) < 0) {
        fprintf(stderr, "store_chain: %s\n", error.text);
        return 1;
    }
    order.changed = chain.pages * permille / 1000;
    int r = run(&chain, &order);
    fl_store_close(chain.store);
    return r < 0;
}
