// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image_open.h"

#include <errno.h>
#include <stdlib.h>

#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/io.h"

static int open_packs(const struct fl_pack_source *source, const struct fl_image_file *file,
                      struct fl_pack ***ret_packs)
{
    uint32_t count = file->header.packs;
    if (!source->any && source->packs != count)
        return -EINVAL;
    struct fl_pack **packs = calloc(count ? count : 1, sizeof(struct fl_pack *));
    if (!packs)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        int r = source->open(source->arg, file->pack_ids[i], &packs[i]);
        if (r == 0)
            continue;
        while (i > 0)
            fl_pack_unref(packs[--i]);
        free(packs);
        return r;
    }
    *ret_packs = packs;
    return 0;
}

int fl_image_load(int *fd, const char *name, const struct fl_pack_source *source,
                  struct fl_image **ret_image)
{
    struct fl_image_file file;
    struct fl_pack **packs;
    int r = fl_image_file_load(*fd, name, &file);
    if (r < 0)
        return r;
    r = open_packs(source, &file, &packs);
    if (r == 0) {
        uint64_t entries = file.header.pages + file.footer.companion_pages;
        r = file.map ? fl_image_new(&file.header, entries, file.map, packs, ret_image)
                     : fl_image_new_lazy(&file.header, entries, file.piece, packs, ret_image);
        file.map = NULL; // the image's now, or freed
        file.piece = NULL;
    }
    if (r == 0) {
        (*ret_image)->fd = *fd;
        *fd = -1;
    }
    fl_image_file_free(&file);
    return r;
}

uint32_t fl_image_files(const struct fl_image *image, int *ret_fds, uint32_t max)
{
    if (image->fd < 0)
        return 0;
    if (max > 0)
        ret_fds[0] = image->fd;
    uint32_t own = image->offer ? 2 : 1;
    if (image->offer && max > 1)
        ret_fds[1] = image->offer->fd;
    for (uint32_t i = 0; i < image->header.packs && i + own < max; i++)
        ret_fds[i + own] = fl_pack_fd(image->packs[i]);
    return image->header.packs + own;
}

struct files {
    const int *fds;
    uint32_t count;
    uint32_t taken; // of them, from the front: they belong to the image or are closed
};

static int take_pack(void *arg, uint64_t id, struct fl_pack **ret_pack)
{
    struct files *files = arg;
    return fl_pack_open_fd(files->fds[files->taken++], id, ret_pack);
}

// Checks this before anything is read: reading a pipe could wait for ever.
static int check_regular(const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bytes;
        int r = fl_file_size(fds[i], &bytes);
        if (r < 0)
            return r;
    }
    return count > 0 ? 0 : -EINVAL;
}

static int load_files(struct files *files, struct fl_image **ret_image)
{
    int r = check_regular(files->fds, files->count);
    if (r < 0)
        return r;
    FL_AUTO_CLOSE int fd = files->fds[files->taken++];
    struct fl_pack_source source = {.open = take_pack, .arg = files, .packs = files->count - 1};
    return fl_image_load(&fd, NULL, &source, ret_image);
}

int fl_image_load_files(const int *fds, uint32_t count, struct fl_image **ret_image)
{
    struct files files = {.fds = fds, .count = count};
    int r = load_files(&files, ret_image);
    for (uint32_t i = files.taken; i < count; i++) {
        int fd = fds[i];
        fl_cleanup_close(&fd);
    }
    return r;
}
