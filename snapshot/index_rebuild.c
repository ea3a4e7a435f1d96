// SPDX-License-Identifier: Apache-2.0
//
// Builds the index again: its directory is emptied while no other process has it open, and filled
// from the packs' own tables. A kill in between leaves an index that knows some packs only; gc adds
// those that it does not know.
//
// Only packs that an image refers to are in the index. A pack that none refers to yet belongs to a
// process that may take it back, with what others would share with it; if it does not, it adds it.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "snapshot/image_file.h"
#include "snapshot/index.h"
#include "snapshot/io.h"
#include "snapshot/pack_list.h"

static int remove_file(void *arg, const char *name)
{
    int *dir_fd = arg;
    return unlinkat(*dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

// A process that works on the old files, without names now, would do no harm. One that has the old
// file of locks and the new file of pages would: so no other process may have the index open.
int fl_index_clear(const char *dir)
{
    FL_AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    return fl_each_file(fd, remove_file, &fd);
}

struct roots {
    struct fl_store *store;
    struct fl_pack_ids ids; // sorted at the end
};

static int compare_ids(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

// Nothing is shared with an image that cannot be read.
static int add_root(void *arg, const char *name)
{
    struct roots *roots = arg;
    struct fl_disk_image_header header;
    char file_name[FL_IMAGE_NAME_BYTES];
    FL_AUTO_FREE uint64_t *ids = NULL;
    if (fl_image_file_name(name, file_name) < 0)
        return 0;
    FL_AUTO_CLOSE int fd = openat(roots->store->reader->images_fd, file_name,
                                  O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r = fd < 0 ? -errno : fl_image_file_header(fd, name, &header);
    if (r == 0)
        r = fl_image_file_packs(fd, &header, &ids);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    for (uint32_t i = 0; r == 0 && i < header.packs; i++)
        r = fl_pack_ids_add(&roots->ids, ids[i]);
    return r;
}

static int find_roots(struct roots *roots)
{
    int r = fl_reader_list(roots->store->reader, add_root, roots);
    if (r == 0 && roots->ids.count > 1)
        qsort(roots->ids.ids, roots->ids.count, sizeof(*roots->ids.ids), compare_ids);
    return r;
}

// A pack that cannot be read cannot be shared with either.
static int add_pack(struct fl_store *store, struct fl_index *index, uint64_t id)
{
    struct fl_pack *pack;
    if (fl_pack_open(store->reader->registry, id, &pack) < 0)
        return 0;
    int r = fl_index_add_pack(index, pack, FL_INDEX_KEEP_KNOWN);
    fl_pack_unref(pack);
    return r == -EUCLEAN ? 0 : r;
}

// A new index is not damaged. What ends its process then is a page of the map that the disk has no
// room for.
static int reason(struct fl_store *store, int error)
{
    enum { ENOUGH = 1 << 20 };
    struct statvfs st;
    bool full = fstatvfs(store->packs_fd, &st) == 0 && st.f_bavail * st.f_frsize < ENOUGH;
    return error == -EBADMSG && full ? -ENOSPC : error;
}

int fl_index_rebuild(struct fl_store *store, struct fl_index **ret_index)
{
    struct fl_index *index = NULL;
    struct roots roots = {.store = store};
    const struct fl_pack_ids *ids = &roots.ids;
    int r = fl_index_clear(store->index_dir);
    if (r == 0)
        r = fl_index_open(store->index_dir, &index);
    if (r == 0)
        r = find_roots(&roots);
    for (size_t i = 0; r == 0 && i < ids->count; i++) {
        if (i == 0 || ids->ids[i] != ids->ids[i - 1])
            r = add_pack(store, index, ids->ids[i]);
    }
    free(roots.ids.ids);
    if (r < 0) {
        fl_index_close(index);
        return reason(store, r);
    }
    *ret_index = index;
    return 0;
}

int fl_index_open_or_rebuild(struct fl_store *store, struct fl_index **ret_index, bool *ret_rebuilt)
{
    int r = fl_index_open(store->index_dir, ret_index);
    if (r != -EBADMSG)
        return r;
    r = fl_index_rebuild(store, ret_index);
    *ret_rebuilt |= r == 0;
    return r;
}

int fl_index_learn(struct fl_store *store, uint64_t pack_id, enum fl_index_prefer prefer,
                   bool *ret_rebuilt)
{
    struct fl_index *index = NULL;
    struct fl_pack *pack;
    int r = fl_pack_open(store->reader->registry, pack_id, &pack);
    if (r < 0)
        return r;
    r = fl_index_open_or_rebuild(store, &index, ret_rebuilt);
    if (r == 0)
        r = fl_index_add_pack(index, pack, prefer);
    fl_index_close(index);
    if (r == -EBADMSG) {
        index = NULL;
        r = fl_index_rebuild(store, &index);
        *ret_rebuilt |= r == 0;
        fl_index_close(index);
    }
    fl_pack_unref(pack);
    return r;
}
