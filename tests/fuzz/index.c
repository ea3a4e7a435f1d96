// SPDX-License-Identifier: Apache-2.0
//
// A small store whose index has mutated bytes, and every verb that opens the index: each ends with
// 0, or with 1 and a sentence, and never by a signal (it would end this program); every image has
// its bytes afterwards; and the index is made anew, or was good enough.
//
// usage: fuzz_index [ITERATIONS [SEED]]
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/mutate.h"
#include "tests/support/memory.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 600, CHANGES_MAX = 6 };

struct target {
    struct temp temp;
    char store[2 * TEST_PATH];
    char memory[2 * TEST_PATH];
    char child[2 * TEST_PATH]; // has half of the pages
    struct file data, lock;
};

struct tally {
    uint64_t used, rebuilt, failed;
};

static void merge_one(const char *store)
{
    static const struct fl_trace_entry touched[] = {{.page = 3}, {.page = 99}, {.page = 7}};
    const struct fl_recording one = {.entries = touched, .count = 3};
    need(merge_trace(store, "image", &one, 1, false) == 0, "recorded");
}

static void make(struct target *target)
{
    temp_make(&target->temp);
    snprintf(target->store, sizeof(target->store), "%s", temp_path(&target->temp, "store"));
    snprintf(target->memory, sizeof(target->memory), "%s", temp_path(&target->temp, "memory"));
    snprintf(target->child, sizeof(target->child), "%s", temp_path(&target->temp, "child"));
    need(make_pages(target->memory, 1, PAGES) == 0, "memory");
    need(make_pages(target->child, PAGES / 2, PAGES) == 0, "memory of the child");
    need(pack_file(target->store, "image", target->memory, NULL) == 0, "packed");
    merge_one(target->store);
    file_load(&target->temp, "store/index/data.mdb", &target->data);
    file_load(&target->temp, "store/index/lock.mdb", &target->lock);
    need(rename(target->store, temp_path(&target->temp, "good")) == 0, "kept");
}

static void renew(const struct target *target)
{
    char command[8 * TEST_PATH];
    snprintf(command, sizeof(command), "rm -rf '%s' && cp -r '%s' '%s'", target->store,
             temp_path(&target->temp, "good"), target->store);
    need(system(command) == 0, command);
}

static void mutate(uint64_t *state, struct file *file)
{
    uint64_t changes = 1 + random_next(state) % CHANGES_MAX;
    memcpy(file->bytes, file->good, file->good_bytes);
    file->used = file->good_bytes;
    for (uint64_t i = 0; i < changes; i++)
        file_change(state, file);
    file_save(file->path, file->bytes, file->used);
}

// --- the verbs; the sentence comes from the library, and is never empty after an error ---

static void count(struct tally *tally, int r, bool rebuilt, int index_error,
                  const struct fl_error *error)
{
    need(r == 0 || (r == -1 * abs(r) && strlen(error->text) > 10), "an error has a sentence");
    need(r == 0, error->text);
    need(index_error == 0, strerror(-index_error));
    tally->rebuilt += rebuilt;
    tally->used += !rebuilt;
}

static void pack(struct fl_store *store, const struct target *target, struct tally *tally)
{
    struct fl_error error = {""};
    struct fl_pack_result result = {.index_error = 0};
    struct fl_pack_options options = {.name = "child", .path = target->child, .threads = 2};
    int r = fl_store_pack(store, &options, &result, &error);
    count(tally, r, result.index_rebuilt, result.index_error, &error);
}

static void collect(struct fl_store *store, const struct target *target, struct tally *tally)
{
    (void)target;
    struct fl_error error = {""};
    struct fl_gc_result result = {.index_error = 0};
    struct fl_gc_options options = {.dry_run = false};
    int r = fl_store_gc(store, &options, &result, &error);
    count(tally, r, result.index_rebuilt, result.index_error, &error);
}

static void optimize(struct fl_store *store, const struct target *target, struct tally *tally)
{
    (void)target;
    struct fl_error error = {""};
    struct fl_optimize_result result = {.index_error = 0};
    struct fl_optimize_options options = {.name = "image"};
    int r = fl_store_optimize(store, &options, &result, &error);
    count(tally, r, result.index_rebuilt, result.index_error, &error);
}

static void check(const struct target *target)
{
    uint64_t bad = 1;
    struct fl_image *image;
    need(verify_store(target->store, &bad) == 0 && bad == 0, "the store is right");
    need(open_image(target->store, "image", &image) == 0, "the image opens");
    need(image_is_file(image, target->memory), "the image is right");
    fl_image_unref(image);
    if (open_image(target->store, "child", &image) < 0)
        return;
    need(image_is_file(image, target->child), "the child is right");
    fl_image_unref(image);
}

static void once(struct target *target, uint64_t seed, struct tally *tally)
{
    static void (*const verbs[])(struct fl_store *, const struct target *,
                                 struct tally *) = {pack, collect, optimize};
    uint64_t state = seed;
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    renew(target);
    mutate(&state, &target->data);
    if (random_next(&state) % 4 == 0)
        mutate(&state, &target->lock);
    need(fl_store_open(target->store, false, &store, &error) == 0, error.text);
    verbs[random_next(&state) % 3](store, target, tally);
    fl_store_close(store);
    check(target);
}

int main(int argc, char **argv)
{
    uint64_t iterations = argc > 1 ? strtoull(argv[1], NULL, 0) : 300;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    struct target target = {0};
    struct tally tally = {0};
    printf("%" PRIu64 " iterations from seed %" PRIu64 "\n", iterations, seed);
    make(&target);
    for (uint64_t i = 0; i < iterations; i++) {
        fuzz_current = seed + i;
        once(&target, fuzz_current, &tally);
    }
    file_free(&target.data);
    file_free(&target.lock);
    temp_remove(&target.temp);
    printf("%" PRIu64 " used, %" PRIu64 " made anew\n", tally.used, tally.rebuilt);
    need(iterations < 100 || (tally.used && tally.rebuilt), "both outcomes occur");
    return 0;
}
