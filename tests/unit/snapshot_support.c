// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/snapshot_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "snapshot/io.h"

int workspace_make(struct workspace *workspace)
{
    snprintf(workspace->dir, sizeof(workspace->dir), "/tmp/faultline-test-XXXXXX");
    if (!mkdtemp(workspace->dir))
        return -errno;
    snprintf(workspace->store, sizeof(workspace->store), "%s/store", workspace->dir);
    snprintf(workspace->memory, sizeof(workspace->memory), "%s/memory", workspace->dir);
    snprintf(workspace->output, sizeof(workspace->output), "%s/output", workspace->dir);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void workspace_remove(const struct workspace *workspace)
{
    remove_tree(workspace->dir);
}

uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t test_seed(void)
{
    const char *given = getenv("FAULTLINE_SEED");
    uint64_t seed = 0;
    if (given)
        seed = strtoull(given, NULL, 0);
    else if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)getpid();
    fprintf(stderr, "FAULTLINE_SEED=%" PRIu64 "\n", seed);
    return seed;
}

void fill_page(void *page, uint64_t number)
{
    uint64_t words[FL_PAGE_SIZE / sizeof(uint64_t)];
    uint64_t state = number;
    for (size_t i = 0; i < FL_PAGE_SIZE / sizeof(uint64_t); i++)
        words[i] = i % 2 ? number : test_random(&state);
    memcpy(page, words, sizeof(words));
}

enum kind { HOLE, ZERO, NOISE, TEXT, SAME, KINDS };

static void fill_kind(enum kind kind, uint64_t *state, char *page)
{
    switch (kind) {
    case NOISE:
        for (size_t i = 0; i < FL_PAGE_SIZE; i += sizeof(uint64_t)) {
            uint64_t word = test_random(state);
            memcpy(page + i, &word, sizeof(word));
        }
        break;
    case TEXT:
        fill_page(page, test_random(state));
        break;
    case SAME:
        fill_page(page, test_random(state) % 8 + 1);
        break;
    case HOLE:
    case ZERO:
    case KINDS:
        memset(page, 0, FL_PAGE_SIZE);
    }
}

int make_memory(const char *path, uint64_t bytes, uint64_t *state)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = 0;
    uint64_t left = 0;
    enum kind kind = HOLE;
    for (uint64_t at = 0; r == 0 && at < bytes; at += FL_PAGE_SIZE, left--) {
        char page[FL_PAGE_SIZE];
        if (left == 0) {
            kind = (enum kind)(test_random(state) % KINDS);
            left = test_random(state) % (test_random(state) % 8 ? 12 : 700) + 1;
        }
        fill_kind(kind, state, page);
        size_t len = bytes - at < FL_PAGE_SIZE ? (size_t)(bytes - at) : FL_PAGE_SIZE;
        if (kind != HOLE)
            r = fl_pwrite_full(fd, page, len, at);
    }
    return r == 0 && ftruncate(fd, (off_t)bytes) < 0 ? -errno : r;
}

int make_pages(const char *path, uint64_t first, uint64_t count)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : 0;
    for (uint64_t i = 0; r == 0 && i < count; i++) {
        char page[FL_PAGE_SIZE];
        fill_page(page, first + i);
        r = fl_pwrite_full(fd, page, sizeof(page), i * FL_PAGE_SIZE);
    }
    return r;
}

bool same_files(const char *left, const char *right)
{
    FILE *a = fopen(left, "re");
    FILE *b = fopen(right, "re");
    bool same = a && b;
    while (same) {
        char one[65536];
        char two[65536];
        size_t n = fread(one, 1, sizeof(one), a);
        size_t m = fread(two, 1, sizeof(two), b);
        same = n == m && memcmp(one, two, n) == 0;
        if (n == 0)
            break;
    }
    if (a)
        fclose(a);
    if (b)
        fclose(b);
    return same;
}

int read_in_two_steps(const struct fl_image *image, struct fl_frame_id id, char *frame,
                      size_t frame_bytes)
{
    struct fl_frame_place place;
    int r = fl_frame_place(image, id, &place);
    if (r < 0)
        return r;
    FL_AUTO_FREE char *stored = malloc(place.stored);
    if (!stored || place.stored < 1 || place.stored > frame_bytes)
        return -ENOMEM;
    r = fl_pread_full(place.fd, stored, place.stored, place.offset);
    memset(frame, 0xa5, frame_bytes);
    return r < 0 ? r : fl_frame_unpack(image, id, stored, frame);
}

static bool run_is_file(const struct fl_image *image, uint64_t page, const struct fl_run *run,
                        int fd)
{
    size_t bytes = (size_t)run->pages * FL_PAGE_SIZE;
    size_t frame_bytes = (size_t)(run->zero ? 1 : fl_frame_pages(image, run->id)) * FL_PAGE_SIZE;
    FL_AUTO_FREE char *expected = calloc(1, bytes);
    FL_AUTO_FREE char *frame = calloc(1, frame_bytes > bytes ? frame_bytes : bytes);
    if (!expected || !frame || pread(fd, expected, bytes, (off_t)(page * FL_PAGE_SIZE)) < 0)
        return false;
    if (run->zero)
        return memcmp(expected, frame, bytes) == 0;
    if (run->slot + run->pages > fl_frame_pages(image, run->id))
        return false;
    return fl_frame_read(image, run->id, frame) == 0 &&
           memcmp(expected, frame + (size_t)run->slot * FL_PAGE_SIZE, bytes) == 0 &&
           read_in_two_steps(image, run->id, frame, frame_bytes) == 0 &&
           memcmp(expected, frame + (size_t)run->slot * FL_PAGE_SIZE, bytes) == 0;
}

bool image_is_file(const struct fl_image *image, const char *path)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t size;
    if (fd < 0 || fl_file_size(fd, &size) < 0 || size != fl_image_bytes(image))
        return false;
    for (uint64_t page = 0; page < fl_image_pages(image);) {
        struct fl_run run = fl_image_run(image, page, 512);
        if (run.pages < 1 || !run_is_file(image, page, &run, fd))
            return false;
        page += run.pages;
    }
    return true;
}

static int scan(const char *store, const char *part, char *ret_path, size_t size)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", store, part);
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    int count = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        count++;
        if (ret_path)
            snprintf(ret_path, size, "%s/%s", path, entry->d_name);
    }
    closedir(dir);
    return count;
}

int count_files(const char *store, const char *part)
{
    return scan(store, part, NULL, 0);
}

int only_file(const char *store, const char *part, char *ret_path, size_t size)
{
    return scan(store, part, ret_path, size) == 1 ? 0 : -ENOENT;
}

static int complain(int r, const struct fl_error *error)
{
    if (r < 0)
        fprintf(stderr, "%s\n", error->text);
    return r;
}

int pack_file(const char *store, const char *name, const char *path,
              struct fl_pack_result *ret_result)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = name, .path = path};
    int r = fl_store_open(store, true, &open_store, &error);
    if (r == 0)
        r = fl_store_pack(open_store, &options, &result, &error);
    fl_store_close(open_store);
    if (r == 0 && ret_result)
        *ret_result = result;
    return complain(r, &error);
}

int unpack_file(const char *store, const char *name, const char *path)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    struct fl_unpack_result result;
    struct fl_unpack_options options = {.name = name, .path = path, .force = true};
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_unpack(open_store, &options, &result, &error);
    fl_store_close(open_store);
    return complain(r, &error);
}

static void print_bad(void *arg, const char *object, const char *problem)
{
    (void)arg;
    fprintf(stderr, "bad: %s: %s\n", object, problem);
}

int verify_store(const char *store, uint64_t *ret_bad)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    struct fl_verify_result result;
    struct fl_verify_options options = {.bad = print_bad};
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_verify(open_store, &options, &result, &error);
    fl_store_close(open_store);
    if (r == 0)
        *ret_bad = result.bad;
    return complain(r, &error);
}

int collect_store(const char *store, bool rebuild, struct fl_gc_result *ret_result)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    struct fl_gc_result result;
    struct fl_gc_options options = {.rebuild_index = rebuild};
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_gc(open_store, &options, &result, &error);
    fl_store_close(open_store);
    if (r == 0 && ret_result)
        *ret_result = result;
    return complain(r, &error);
}

int remove_image(const char *store, const char *name)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_rm(open_store, name, &error);
    fl_store_close(open_store);
    return complain(r, &error);
}

int inspect_image(const char *store, const char *name, struct fl_image_detail *ret_detail)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_inspect(open_store, name, ret_detail, &error);
    fl_store_close(open_store);
    return complain(r, &error);
}

int merge_trace(const char *store, const char *name, const struct fl_recording *recordings,
                unsigned count, bool replace)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_trace_merge(open_store, name, recordings, count, replace, &error);
    fl_store_close(open_store);
    return complain(r, &error);
}

int remove_trace(const char *store, const char *name)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_trace_rm(open_store, name, &error);
    fl_store_close(open_store);
    return complain(r, &error);
}

int read_trace(const char *store, const char *name, struct fl_recording *ret_recording)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    int r = fl_store_open(store, false, &open_store, &error);
    if (r == 0)
        r = fl_store_trace_read(open_store, name, ret_recording, &error);
    fl_store_close(open_store);
    return complain(r, &error);
}

int open_trace(const char *store, const char *name, struct fl_trace **ret_trace)
{
    struct fl_reader *reader;
    struct fl_image *image;
    int r = fl_reader_open(store, &reader);
    if (r < 0)
        return r;
    r = fl_image_open(reader, name, &image);
    if (r == 0) {
        r = fl_trace_open(reader, image, ret_trace);
        fl_image_unref(image);
    }
    fl_reader_close(reader);
    return r;
}

int open_files(const int *fds, uint32_t count, struct fl_image **ret_image)
{
    struct fl_image *image = NULL;
    int r = fl_image_open_files(fds, count, &image);
    if (r < 0)
        return r;
    r = fl_image_read_map(image, 0, fl_image_pages(image));
    if (r < 0)
        fl_image_unref(image);
    else
        *ret_image = image;
    return r;
}

int open_image(const char *store, const char *name, struct fl_image **ret_image)
{
    struct fl_reader *reader;
    int r = fl_reader_open(store, &reader);
    if (r < 0)
        return r;
    r = fl_image_open(reader, name, ret_image);
    fl_reader_close(reader);
    return r;
}

int count_descriptors(void)
{
    return scan("/proc/self", "fd", NULL, 0);
}

int duplicate_files(const struct fl_image *image, int ret_fds[FILES_ROOM])
{
    uint32_t count = fl_image_files(image, ret_fds, FILES_ROOM);
    if (count > FILES_ROOM)
        return -E2BIG;
    for (uint32_t i = 0; i < count; i++) {
        ret_fds[i] = fcntl(ret_fds[i], F_DUPFD_CLOEXEC, 0);
        if (ret_fds[i] < 0)
            return -errno;
    }
    return (int)count;
}

static int pack_pages(const struct workspace *workspace, const char *name, uint64_t first,
                      uint64_t count)
{
    int r = make_pages(workspace->memory, first, count);
    return r < 0 ? r : pack_file(workspace->store, name, workspace->memory, NULL);
}

int make_top(const struct workspace *workspace)
{
    int r = pack_pages(workspace, "left", 1, 100);
    if (r == 0)
        r = pack_pages(workspace, "right", 101, 100);
    if (r == 0)
        r = pack_pages(workspace, "other", 70000, 100);
    return r < 0 ? r : pack_pages(workspace, "top", 1, 300);
}

int top_files(const struct workspace *workspace, int ret_fds[FILES_ROOM])
{
    struct fl_image *image;
    int r = open_image(workspace->store, "top", &image);
    if (r < 0)
        return r;
    r = duplicate_files(image, ret_fds);
    fl_image_unref(image);
    return r < 0 || r == TOP_FILES ? r : -EINVAL;
}
