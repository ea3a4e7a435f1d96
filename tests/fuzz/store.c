// SPDX-License-Identifier: Apache-2.0
//
// Two small stores, one of each codec, with mutated bytes, read through snapshot/read.h: whatever is on disk, it ends in
// an error or in the right bytes. Every second time the checksums are made right again, as no
// accident does: the bytes may then be others, but what is read stays within its bounds.
//
// usage: fuzz_store [ITERATIONS [SEED]]
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "snapshot/companion.h"
#include "snapshot/format.h"
#include "tests/fuzz/mutate.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"
#include "tests/unit/snapshot_sign.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 150, CHANGES_MAX = 4, COMPANION_BYTES = 5 * PAGE };

struct target {
    struct fl_compression compression; // of the pack
    struct temp temp;
    struct memory memory;
    char store[2 * TEST_PATH];
    struct file image;
    struct file rich; // an image with companions and labels
    struct file pack;
    struct file trace;
};

struct tally {
    uint64_t refused;    // the image could not be opened
    uint64_t traceless;  // the trace could not
    uint64_t untold;     // what the image has besides memory could not be told
    uint64_t companions; // that were read
    uint64_t unreadable; // a frame could not be read
    uint64_t right;
};

// Two recordings: every second page from the end, every third from the start.
static void make_trace(const struct target *target)
{
    struct fl_trace_entry back[PAGES / 2];
    struct fl_trace_entry forth[PAGES / 3];
    for (uint32_t i = 0; i < PAGES / 2; i++)
        back[i] = (struct fl_trace_entry){.page = PAGES - 1 - 2 * i, .ms = i};
    for (uint32_t i = 0; i < PAGES / 3; i++)
        forth[i] = (struct fl_trace_entry){.page = 3 * i, .ms = 2 * i};
    const struct fl_recording both[] = {{.entries = back, .count = PAGES / 2},
                                        {.entries = forth, .count = PAGES / 3}};
    need(merge_trace(target->store, "image", both, 2, false) == 0, "recorded");
}

static void make_plain(const struct target *target, const char *memory)
{
    struct fl_store *store = NULL;
    struct fl_pack_result result;
    const struct fl_pack_options options = {
        .name = "image", .path = memory, .compression = target->compression};
    need(fl_store_open(target->store, true, &store, NULL) == 0 &&
             fl_store_pack(store, &options, &result, NULL) == 0,
         "packed");
    fl_store_close(store);
}

// The same memory, with its beginning as a companion.
static void make_rich(const struct target *target, const char *memory)
{
    struct fl_store *store = NULL;
    struct fl_error error;
    struct fl_pack_result result;
    char start[COMPANION_BYTES];
    const char *path = temp_path(&target->temp, "start");
    FILE *from = fopen(memory, "re");
    FILE *to = fopen(path, "we");
    need(from && to && fread(start, 1, sizeof(start), from) == sizeof(start) &&
             fwrite(start, 1, sizeof(start), to) == sizeof(start) && fclose(to) == 0,
         "a companion");
    fclose(from);
    const struct fl_companion_file with[] = {{"start", path}, {"again", path}};
    const char *const labels[] = {"key=value", "other="};
    const struct fl_pack_options options = {.name = "rich",
                                            .path = memory,
                                            .with = with,
                                            .with_count = 2,
                                            .labels = labels,
                                            .labels_count = 2};
    need(fl_store_open(target->store, false, &store, &error) == 0 &&
             fl_store_pack(store, &options, &result, &error) == 0,
         "packed with companions");
    fl_store_close(store);
}

static void make(struct target *target)
{
    temp_make(&target->temp);
    const char *memory = temp_path(&target->temp, "memory");
    snprintf(target->store, sizeof(target->store), "%s", temp_path(&target->temp, "store"));
    memory_make(&target->memory, memory, (uint64_t)PAGES * PAGE - 100, 3);
    char path[TEST_PATH];
    snprintf(path, sizeof(path), "%s", memory); // temp_path() has one place for all
    make_plain(target, path);
    make_trace(target);
    make_rich(target, path);
    file_load(&target->temp, "store/images/image.img", &target->image);
    file_load(&target->temp, "store/images/rich.img", &target->rich);
    file_load(&target->temp, "store/packs/*.pack", &target->pack);
    file_load(&target->temp, "store/traces/image.trace", &target->trace);
}

static void destroy(struct target *target)
{
    memory_free(&target->memory);
    temp_remove(&target->temp);
    file_free(&target->image);
    file_free(&target->rich);
    file_free(&target->pack);
    file_free(&target->trace);
}

// --- checksums that fit ---

static bool inside(const struct file *file, uint64_t offset, uint64_t count, uint64_t size)
{
    return offset <= file->used && count <= (file->used - offset) / size;
}

static void sign_trace(struct file *file)
{
    struct fl_disk_trace_header header;
    if (!inside(file, 0, 1, sizeof(header)))
        return;
    memcpy(&header, file->bytes, sizeof(header));
    size_t size = sizeof(struct fl_disk_trace_entry);
    if (inside(file, sizeof(header), header.count, size))
        header.entries_checksum =
            XXH3_64bits(file->bytes + sizeof(header), (size_t)header.count * size);
    header.checksum = XXH3_64bits(&header, offsetof(struct fl_disk_trace_header, checksum));
    memcpy(file->bytes, &header, sizeof(header));
}

// --- reading ---

// One run; false if its frame cannot be read. A buffer of exactly a frame: AddressSanitizer sees
// what is written beyond.
static bool read_run(const struct target *target, const struct fl_image *image, uint64_t page,
                     const struct fl_run *run, bool as_packed)
{
    static const uint8_t zeros[PAGE];
    if (run->zero) {
        for (uint32_t i = 0; as_packed && i < run->pages; i++)
            need(memory_same(&target->memory, (page + i) * PAGE, zeros, PAGE), "zeros are right");
        return true;
    }
    uint32_t pages = fl_frame_pages(image, run->id);
    if (pages == 0 || pages > FL_FRAME_PAGES_MAX)
        end("the frame of a run exists");
    need(run->slot < pages && run->pages <= pages - run->slot, "a run is within its frame");
    as_packed = as_packed && !run->unread; // that is no frame's
    uint8_t *frame = calloc(pages, PAGE);
    need(frame, "memory");
    bool there = fl_frame_read(image, run->id, frame) == 0;
    if (there && as_packed)
        need(memory_same(&target->memory, page * PAGE, frame + (size_t)run->slot * PAGE,
                         (uint64_t)run->pages * PAGE),
             "the bytes are right");
    free(frame);
    return there;
}

static void read_image(const struct target *target, const struct fl_image *image, bool as_packed,
                       struct tally *tally)
{
    bool whole = true;
    uint64_t pages = fl_image_pages(image);
    need(pages == (fl_image_bytes(image) + PAGE - 1) / PAGE, "bytes and pages agree");
    need(!as_packed || fl_image_bytes(image) == target->memory.bytes, "the size is right");
    uint32_t most = pages <= 4096 ? 64 : UINT32_MAX;
    for (uint64_t page = 0; page < pages;) {
        struct fl_run run = fl_image_run(image, page, most);
        need(run.pages >= 1 && run.pages <= most && run.pages <= pages - page, "a run's length");
        bool there = read_run(target, image, page, &run, as_packed);
        whole &= there;
        if (there && run.unread)
            need(!fl_image_run(image, page, most).unread, "what was read of the map is known");
        else
            page += run.pages;
    }
    tally->right += whole;
    tally->unreadable += !whole;
}

// Each page at most once and within the image, by no more recordings than there are.
static void read_entries(const struct fl_image *image, const struct fl_trace *trace)
{
    const struct fl_trace_entry *entries = fl_trace_entries(trace);
    uint64_t count = fl_trace_count(trace);
    need(count >= 1 && count <= fl_image_pages(image), "entries are within bounds");
    bool *had = calloc(fl_image_pages(image), sizeof(*had));
    need(had, "memory");
    for (uint64_t i = 0; i < count; i++) {
        need(entries[i].page < fl_image_pages(image) && !had[entries[i].page], "a page, once");
        need(entries[i].seen >= 1 && entries[i].seen <= fl_trace_runs(trace), "seen is right");
        had[entries[i].page] = true;
    }
    free(had);
}

static void check_trace(struct fl_reader *reader, const struct fl_image *image, struct tally *tally)
{
    struct fl_trace *trace = NULL;
    int error = fl_trace_open(reader, image, &trace);
    need(error <= 0, "an errno");
    if (error)
        tally->traceless++;
    else
        read_entries(image, trace);
    fl_trace_unref(trace);
}

static void read_companion(const struct target *target, const struct fl_image *image,
                           const struct fl_image_tail *tail, uint32_t number, bool as_packed,
                           struct tally *tally)
{
    static uint8_t bytes[COMPANION_BYTES];
    bool output_failed = false;
    int fd = memfd_create("companion", MFD_CLOEXEC);
    (void)fl_companion_check(image, tail, number);
    int error = fl_companion_write(image, tail, number, fd, &output_failed);
    need(fd >= 0 && error <= 0 && !output_failed, "an errno");
    tally->companions += error == 0;
    if (error == 0 && as_packed)
        need(pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) &&
                 memory_same(&target->memory, 0, bytes, sizeof(bytes)),
             "a companion is right");
    close(fd);
}

static void read_about(const struct target *target, const struct fl_image *image, bool as_packed,
                       struct tally *tally)
{
    struct fl_image_tail tail = {.about = NULL};
    struct fl_image_about about = {.companions = NULL};
    int error = fl_image_read_map(image, 0, image->entries);
    if (error == 0)
        error = fl_image_tail_read(image, &tail);
    if (error == 0)
        error = fl_image_tail_tell(&tail, &about);
    need(error <= 0, "an errno");
    tally->untold += error < 0;
    for (uint32_t i = 0; error == 0 && i < about.companions_count; i++)
        read_companion(target, image, &tail, i, as_packed, tally);
    fl_image_about_free(&about);
    fl_image_tail_free(&tail);
}

static void read_named(const struct target *target, struct fl_reader *reader, const char *name,
                       bool as_packed, struct tally *tally)
{
    struct fl_image *image = NULL;
    int error = fl_image_open_lazy(reader, name, &image);
    need(error <= 0, "an errno");
    if (error) {
        tally->refused++;
        return;
    }
    read_image(target, image, as_packed, tally);
    read_about(target, image, as_packed, tally);
    if (strcmp(name, "image") == 0)
        check_trace(reader, image, tally);
    fl_image_unref(image);
}

static void read_store(const struct target *target, bool as_packed, struct tally *tally)
{
    struct fl_reader *reader = NULL;
    need(fl_reader_open(target->store, &reader) == 0, "the store opens");
    read_named(target, reader, "image", as_packed, tally);
    read_named(target, reader, "rich", as_packed, tally);
    fl_reader_close(reader);
}

static void once(struct target *target, uint64_t seed, struct tally *tally)
{
    uint64_t state = seed;
    struct file *const files[] = {&target->image, &target->pack, &target->trace, &target->rich};
    struct file *file = files[random_next(&state) % 4];
    bool sign = random_next(&state) % 2;
    uint64_t changes = 1 + random_next(&state) % CHANGES_MAX;
    memcpy(file->bytes, file->good, file->good_bytes);
    file->used = file->good_bytes;
    for (uint64_t i = 0; i < changes; i++)
        file_change(&state, file);
    if (sign && (file == &target->image || file == &target->rich))
        sign_image(file->bytes, file->used);
    else if (sign && file == &target->pack)
        sign_pack(file->bytes, file->used);
    else if (sign)
        sign_trace(file);
    file_save(file->path, file->bytes, file->used);
    read_store(target, !sign, tally);
    file_save(file->path, file->good, file->good_bytes);
}

int main(int argc, char **argv)
{
    uint64_t iterations = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    static struct target targets[] = {{.compression = {FL_CODEC_LZ4, 1}},
                                      {.compression = {FL_CODEC_ZSTD, 3}}};
    struct tally tally = {0};
    printf("%" PRIu64 " iterations from seed %" PRIu64 "\n", iterations, seed);
    for (int i = 0; i < 2; i++) {
        make(&targets[i]);
        read_store(&targets[i], true, &tally);
    }
    need(tally.right == 4 && tally.traceless == 0 && tally.companions == 4,
         "the stores are right before they are changed");
    for (uint64_t i = 0; i < iterations; i++) {
        fuzz_current = seed + i;
        once(&targets[fuzz_current % 2], fuzz_current, &tally);
    }
    for (int i = 0; i < 2; i++)
        destroy(&targets[i]);
    printf("%" PRIu64 " refused, %" PRIu64 " with frames that cannot be read, %" PRIu64
           " with a trace that cannot be, %" PRIu64 " right\n",
           tally.refused, tally.unreadable, tally.traceless, tally.right);
    need(iterations < 1000 || (tally.refused && tally.unreadable && tally.traceless &&
                               tally.untold && tally.companions > 4 && tally.right > 4),
         "every outcome occurs");
    return 0;
}
