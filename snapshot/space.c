// SPDX-License-Identifier: Apache-2.0
//
// The bytes that images have on disk. Packs are the unit: gc gives back whole packs, so what an
// image has for itself is what its removal would free.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/pack_name.h"
#include "snapshot/store_dir.h"

// An image refers to a pack.
struct reference {
    uint64_t pack;
    size_t image;
};

struct space {
    struct fl_store *store;
    struct fl_image_space *images;
    struct reference *list;
    size_t count, room;
};

static int add_reference(struct space *space, uint64_t pack, size_t image)
{
    if (space->count == space->room) {
        size_t room = space->room ? 2 * space->room : 64;
        struct reference *grown = realloc(space->list, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        space->list = grown;
        space->room = room;
    }
    space->list[space->count++] = (struct reference){pack, image};
    return 0;
}

// An image that cannot be read has no references: what becomes of it is said elsewhere.
static int add_image(struct space *space, const char *name, size_t image)
{
    struct stat st;
    char file_name[FL_IMAGE_NAME_BYTES];
    struct fl_disk_image_header header;
    FL_AUTO_FREE uint64_t *ids = NULL;
    if (fl_image_file_name(name, file_name) < 0)
        return 0;
    FL_AUTO_CLOSE int fd = openat(space->store->reader->images_fd, file_name,
                                  O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    space->images[image].own_bytes = (uint64_t)st.st_size;
    int r = fl_image_file_header(fd, name, &header);
    if (r == 0)
        r = fl_image_file_packs(fd, &header, &ids);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    for (uint32_t i = 0; r == 0 && i < header.packs; i++)
        r = add_reference(space, ids[i], image);
    return r;
}

static int compare_references(const void *left, const void *right)
{
    const struct reference *a = left;
    const struct reference *b = right;
    if (a->pack != b->pack)
        return a->pack < b->pack ? -1 : 1;
    return a->image < b->image ? -1 : a->image > b->image;
}

static uint64_t pack_bytes(const struct fl_store *store, uint64_t pack)
{
    struct stat st;
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(pack, name);
    return fstatat(store->packs_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

// Adds each pack to its one image, or to all that share it.
static void share_out(struct space *space)
{
    if (space->count > 0)
        qsort(space->list, space->count, sizeof(*space->list), compare_references);
    for (size_t first = 0; first < space->count;) {
        size_t end = first + 1;
        while (end < space->count && space->list[end].pack == space->list[first].pack)
            end++;
        uint64_t bytes = pack_bytes(space->store, space->list[first].pack);
        bool shared = space->list[end - 1].image != space->list[first].image;
        for (size_t i = first; i < end; i++) {
            struct fl_image_space *image = &space->images[space->list[i].image];
            *(shared ? &image->shared_bytes : &image->own_bytes) += bytes;
        }
        first = end;
    }
}

int fl_store_space(struct fl_store *store, char *const *names, size_t count,
                   struct fl_image_space *ret_space, struct fl_error *ret_error)
{
    struct space space = {.store = store, .images = ret_space};
    int r = 0;
    for (size_t i = 0; i < count; i++)
        ret_space[i] = (struct fl_image_space){0};
    for (size_t i = 0; i < count && r == 0; i++)
        r = add_image(&space, names[i], i);
    if (r == 0)
        share_out(&space);
    free(space.list);
    return r < 0 ? fl_fail(ret_error, r, "cannot look at the packs of the store %s", store->dir)
                 : 0;
}
