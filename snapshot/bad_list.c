// SPDX-License-Identifier: Apache-2.0
#include "snapshot/bad_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "snapshot/publish.h"

struct list {
    struct fl_disk_bad_frame *entries;
    size_t count, room;
};

static int append(struct list *list, struct fl_disk_bad_frame entry)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        struct fl_disk_bad_frame *grown = realloc(list->entries, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        list->entries = grown;
        list->room = room;
    }
    list->entries[list->count++] = entry;
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    const struct fl_disk_bad_frame *left = a;
    const struct fl_disk_bad_frame *right = b;
    if (left->pack_id != right->pack_id)
        return left->pack_id < right->pack_id ? -1 : 1;
    return left->frame < right->frame ? -1 : left->frame > right->frame;
}

static int read_list(int fd, struct list *list)
{
    struct fl_disk_bad_header header;
    uint64_t file_bytes;
    int r = fl_read_header(fd, fl_magic_bad, FL_BAD_VERSION, &header, sizeof(header), &file_bytes);
    if (r < 0)
        return r;
    uint64_t left = file_bytes - sizeof(header);
    if (left % sizeof(*list->entries) != 0 || header.count != left / sizeof(*list->entries))
        return -EBADMSG;
    list->entries = malloc(left ? left : 1);
    r = list->entries ? fl_pread_full(fd, list->entries, left, sizeof(header)) : -ENOMEM;
    if (r == 0 && fl_checksum(list->entries, left) != header.entries_checksum)
        r = -EBADMSG;
    list->count = list->room = r == 0 ? header.count : 0;
    return r;
}

// A damaged list, or one of another version, counts as an empty one.
static int load_list(struct fl_store *store, struct list *ret_list)
{
    struct list list = {.entries = NULL};
    FL_AUTO_CLOSE int fd =
        openat(store->reader->dir_fd, FL_BAD_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r = fd < 0 ? -errno : read_list(fd, &list);
    if (r == -ENOENT || r == -ELOOP || r == -EBADMSG || r == -EPROTONOSUPPORT)
        r = 0;
    if (r < 0)
        free(list.entries);
    else
        *ret_list = list;
    return r;
}

int fl_bad_list_load(struct fl_store *store, enum fl_bad_which which, struct fl_bad_frames *ret_bad)
{
    struct list list;
    struct fl_bad_frames bad = {.ids = NULL};
    int r = load_list(store, &list);
    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < list.count; i++) {
        const struct fl_disk_bad_frame *entry = &list.entries[i];
        if (which == FL_BAD_ALL || entry->state == FL_BAD_NEEDED)
            r = fl_bad_frames_add(&bad, (struct fl_frame_id){entry->pack_id, entry->frame});
    }
    free(list.entries);
    if (r < 0) {
        fl_bad_frames_free(&bad);
        return r;
    }
    fl_bad_frames_sort(&bad);
    *ret_bad = bad;
    return 0;
}

static int write_list(struct fl_store *store, const struct list *list)
{
    struct fl_temp temp;
    size_t bytes = list->count * sizeof(*list->entries);
    struct fl_disk_bad_header header = {
        .version = FL_BAD_VERSION,
        .count = list->count,
        .entries_checksum = fl_checksum(list->entries, bytes),
    };
    memcpy(header.magic, fl_magic_bad, sizeof(header.magic));
    header.checksum = fl_checksum(&header, offsetof(struct fl_disk_bad_header, checksum));
    int r = fl_temp_create(store->tmp_fd, ".bad", &temp);
    if (r == 0)
        r = fl_pwrite_full(temp.fd, &header, sizeof(header), 0);
    if (r == 0)
        r = fl_pwrite_full(temp.fd, list->entries, bytes, sizeof(header));
    if (r == 0)
        r = fl_temp_publish(&temp, store->reader->dir_fd, FL_BAD_NAME, true);
    fl_temp_discard(&temp);
    return r;
}

static bool forgotten(const struct fl_bad_change *change, uint64_t pack)
{
    for (size_t i = 0; i < change->forget_count; i++) {
        if (change->forget_packs[i] == pack)
            return true;
    }
    return false;
}

static bool has(const struct fl_bad_frames *bad, const struct fl_disk_bad_frame *entry)
{
    return bad && fl_bad_frames_find(bad, (struct fl_frame_id){entry->pack_id, entry->frame});
}

static int append_all(struct list *list, const struct fl_bad_frames *bad, enum fl_bad_state state)
{
    int r = 0;
    for (size_t i = 0; bad && r == 0 && i < bad->count; i++)
        r = append(list, (struct fl_disk_bad_frame){bad->ids[i].pack, bad->ids[i].frame, state});
    return r;
}

// Copies the entries that stay, then adds those that come or change their state.
static int merge(const struct list *old, const struct fl_bad_change *change, struct list *merged)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < old->count; i++) {
        const struct fl_disk_bad_frame *entry = &old->entries[i];
        if (!forgotten(change, entry->pack_id) && !has(change->needed, entry) &&
            !has(change->unused, entry))
            r = append(merged, *entry);
    }
    if (r == 0)
        r = append_all(merged, change->needed, FL_BAD_NEEDED);
    if (r == 0)
        r = append_all(merged, change->unused, FL_BAD_UNUSED);
    if (r == 0 && merged->count > 1)
        qsort(merged->entries, merged->count, sizeof(*merged->entries), compare_entries);
    return r;
}

static bool same(const struct list *a, const struct list *b)
{
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->entries, b->entries, a->count * sizeof(*a->entries)) == 0);
}

static int change_locked(struct fl_store *store, const struct fl_bad_change *change)
{
    struct list old = {.entries = NULL};
    struct list merged = {.entries = NULL};
    int r = load_list(store, &old);
    if (r == 0)
        r = merge(&old, change, &merged);
    if (r == 0 && !same(&old, &merged))
        r = write_list(store, &merged);
    free(old.entries);
    free(merged.entries);
    return r;
}

// Takes the lock of packs/, through a descriptor of its own: locks belong to open files.
int fl_bad_list_change(struct fl_store *store, const struct fl_bad_change *change)
{
    FL_AUTO_CLOSE int fd = openat(store->packs_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while (flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return change_locked(store, change);
}
