// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_with.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "snapshot/pack_input.h"

static int compare_companions(const void *left, const void *right)
{
    const struct fl_pack_companion *a = left;
    const struct fl_pack_companion *b = right;
    return strcmp(a->disk.name, b->disk.name);
}

static int compare_labels(const void *left, const void *right)
{
    return fl_label_compare(*(const char *const *)left, *(const char *const *)right);
}

static int open_companion(const struct fl_companion_file *file, struct fl_pack_companion *companion,
                          struct fl_error *error)
{
    if (!fl_name_valid(file->name))
        return fl_fail_plain(error, -EINVAL,
                             "'%s' cannot name a companion: 1 to %u of A-Z a-z 0-9 . _ - and not "
                             "starting with '.' or '-'",
                             file->name, FL_NAME_MAX);
    companion->path = file->path;
    strncpy(companion->disk.name, file->name, sizeof(companion->disk.name) - 1);
    int r = fl_input_open("companion", file->path, &companion->fd, &companion->stat, error);
    if (r < 0 && r != -ENODATA) // one of no bytes is as good as any
        return r;
    companion->disk.bytes = (uint64_t)companion->stat.st_size;
    if (companion->disk.bytes > FL_COMPANION_BYTES_MAX)
        return fl_fail_plain(error, -EFBIG, "the companion %s has more than 1 GiB", file->path);
    return 0;
}

static int open_companions(const struct fl_pack_options *options, struct fl_pack_with *with,
                           struct fl_error *error)
{
    if (options->with_count > FL_COMPANIONS_MAX)
        return fl_fail_plain(error, -E2BIG, "an image has at most %u companions",
                             FL_COMPANIONS_MAX);
    with->companions = calloc(options->with_count + 1, sizeof(*with->companions));
    if (!with->companions)
        return fl_fail(error, -ENOMEM, "cannot pack the companions");
    int r = 0;
    for (size_t i = 0; r == 0 && i < options->with_count; i++) {
        struct fl_pack_companion *companion = &with->companions[with->count++];
        companion->fd = -1;
        r = open_companion(&options->with[i], companion, error);
    }
    if (r < 0)
        return r;
    qsort(with->companions, with->count, sizeof(*with->companions), compare_companions);
    for (uint32_t i = 1; i < with->count; i++) {
        if (compare_companions(&with->companions[i - 1], &with->companions[i]) == 0)
            return fl_fail_plain(error, -EEXIST, "there are two companions '%s'",
                                 with->companions[i].disk.name);
    }
    return 0;
}

static int sort_labels(const struct fl_pack_options *options, struct fl_pack_with *with,
                       struct fl_error *error)
{
    size_t bytes = 0;
    with->labels = calloc(options->labels_count + 1, sizeof(*with->labels));
    if (!with->labels)
        return fl_fail(error, -ENOMEM, "cannot pack the labels");
    for (size_t i = 0; i < options->labels_count; i++) {
        if (!fl_label_valid(options->labels[i]))
            return fl_fail_plain(error, -EINVAL,
                                 "'%s' is not a label: KEY=VALUE, with a key of A-Z a-z 0-9 . _ - "
                                 "and a value of printable ASCII",
                                 options->labels[i]);
        bytes += strlen(options->labels[i]) + 1;
        with->labels[with->labels_count++] = options->labels[i];
    }
    if (bytes > FL_LABELS_BYTES_MAX)
        return fl_fail_plain(error, -E2BIG, "an image's labels have at most %u bytes",
                             FL_LABELS_BYTES_MAX);
    qsort(with->labels, with->labels_count, sizeof(*with->labels), compare_labels);
    for (size_t i = 1; i < with->labels_count; i++) {
        if (fl_label_compare(with->labels[i - 1], with->labels[i]) == 0)
            return fl_fail_plain(error, -EEXIST, "the label '%s' is there twice", with->labels[i]);
    }
    return 0;
}

// The content id of a companion without pages.
static int hash_empty(struct fl_pack_with *with)
{
    struct fl_identity none;
    int r = fl_hash_start(with->hasher);
    if (r == 0)
        r = fl_hash_finish(with->hasher, &none);
    for (uint32_t i = 0; i < with->count; i++)
        with->companions[i].disk.content_id = none;
    return r;
}

int fl_with_open(const struct fl_pack_options *options, struct fl_pack_with *ret_with,
                 struct fl_error *ret_error)
{
    int r = open_companions(options, ret_with, ret_error);
    if (r == 0)
        r = sort_labels(options, ret_with, ret_error);
    if (r < 0)
        return r;
    r = fl_hasher_new(&ret_with->hasher);
    if (r == 0)
        r = hash_empty(ret_with);
    return r < 0 ? fl_fail(ret_error, r, "cannot pack the companions") : 0;
}

void fl_with_close(struct fl_pack_with *with)
{
    for (uint32_t i = 0; i < with->count; i++)
        fl_cleanup_close(&with->companions[i].fd);
    free(with->companions);
    free(with->labels);
    fl_hasher_free(with->hasher);
    *with = (struct fl_pack_with){.companions = NULL};
}

int fl_with_unchanged(const struct fl_pack_with *with, struct fl_error *ret_error)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < with->count; i++) {
        const struct fl_pack_companion *companion = &with->companions[i];
        r = fl_input_unchanged("companion", companion->path, companion->fd, &companion->stat,
                               ret_error);
    }
    return r;
}

int fl_with_tail(const struct fl_pack_with *with, const struct fl_pack_live *live,
                 struct fl_image_tail *ret_tail)
{
    struct fl_disk_companion companions[FL_COMPANIONS_MAX];
    for (uint32_t i = 0; i < with->count; i++)
        companions[i] = with->companions[i].disk;
    return fl_image_tail_make(companions, with->count, with->labels, with->labels_count,
                              live ? live->parent : NULL, live ? live->parent_content_id : NULL,
                              ret_tail);
}

// --- stages ---

int fl_with_next(struct fl_pack_with *with, struct fl_chunk *chunk)
{
    while (with->next < with->count) {
        struct fl_pack_companion *companion = &with->companions[with->next];
        uint64_t left = fl_companion_pages(companion->disk.bytes) - with->next_page;
        if (left == 0) {
            with->next++;
            with->next_page = 0;
            continue;
        }
        chunk->companion = companion;
        chunk->first_page = with->next_page;
        chunk->pages = left < FL_CHUNK_PAGES ? left : FL_CHUNK_PAGES;
        with->next_page += chunk->pages;
        return 1;
    }
    return 0;
}

int fl_with_read(struct fl_chunk *chunk)
{
    const struct fl_pack_companion *companion = chunk->companion;
    uint64_t at = chunk->first_page * FL_PAGE_SIZE;
    uint64_t left = companion->disk.bytes - at;
    size_t room = chunk->pages * FL_PAGE_SIZE;
    size_t bytes = left < room ? (size_t)left : room;
    fl_chunk_fill(chunk);
    memset(chunk->input + bytes, 0, room - bytes);
    int r = fl_pread_full(companion->fd, chunk->input, bytes, at);
    return r == -EBADMSG ? -ENODATA : r; // it has become shorter
}

int fl_with_hash(struct fl_pack_with *with, const struct fl_chunk *chunk)
{
    struct fl_disk_companion *disk = &chunk->companion->disk;
    int r = chunk->first_page == 0 ? fl_hash_start(with->hasher) : 0;
    if (r == 0)
        r = fl_hash_update(with->hasher, chunk->identity,
                           chunk->pages * sizeof(chunk->identity[0]));
    if (r == 0 && chunk->first_page + chunk->pages == fl_companion_pages(disk->bytes))
        r = fl_hash_finish(with->hasher, &disk->content_id);
    return r;
}
