// SPDX-License-Identifier: Apache-2.0
//
// Opens a raw memory file as an image: it has a map as a stored image has, and the file itself is
// its only pack.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "snapshot/image.h"
#include "snapshot/io.h"

// Pages [first, end) of the file are data: page n is slot n % 16 of frame n / 16.
static void map_data(uint64_t *map, uint64_t first, uint64_t end)
{
    for (uint64_t page = first; page < end; page++)
        map[page] =
            fl_entry(0, (uint32_t)(page / FL_FRAME_PAGES), (uint32_t)(page % FL_FRAME_PAGES));
}

// Makes the map. Holes are zero. A page that is a hole only in part is data.
static int map_extents(int fd, uint64_t bytes, uint64_t *map)
{
    off_t size = (off_t)bytes;
    off_t at = 0;
    while (at < size) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? 0 : -errno; // ENXIO: only a hole is left
        off_t hole = lseek(fd, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        if (data >= size)
            return 0;
        at = hole < size ? hole : size;
        map_data(map, (uint64_t)data / FL_PAGE_SIZE,
                 ((uint64_t)at + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE);
    }
    return 0;
}

static void fill_header(const char *path, uint64_t bytes, struct fl_disk_image_header *header)
{
    const char *slash = strrchr(path, '/');
    *header = (struct fl_disk_image_header){
        .bytes = bytes,
        .pages = (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE,
        .packs = 1,
    };
    snprintf(header->name, sizeof(header->name), "%s", slash ? slash + 1 : path);
    for (char *at = header->name; *at; at++) // it is printed and logged as a word
        *at = (char)(isgraph((unsigned char)*at) && *at != '"' && *at != '\\' ? *at : '?');
}

int fl_image_open_raw(const char *path, struct fl_image **ret_image)
{
    struct fl_disk_image_header header;
    uint64_t bytes;
    // Non-blocking, so that naming a FIFO by mistake is an error and not a wait.
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = fl_file_size(fd, &bytes);
    if (r < 0)
        return r;
    if (bytes == 0)
        return -ENODATA;
    fill_header(path, bytes, &header);
    struct fl_pack **packs = malloc(sizeof(struct fl_pack *));
    uint64_t *map = fl_map_memory(header.pages * sizeof(*map));
    r = packs && map ? map_extents(fd, bytes, map) : -ENOMEM;
    if (r == 0)
        r = fl_pack_open_raw(fd, bytes, packs);
    if (r < 0) {
        fl_unmap(map, header.pages * sizeof(*map));
        free(packs);
        return r;
    }
    fd = -1; // the pack's now
    return fl_image_new(&header, header.pages, map, packs, ret_image);
}

bool fl_image_is_raw(const struct fl_image *image)
{
    return image->header.packs == 1 && fl_pack_is_raw(image->packs[0]);
}

uint32_t fl_image_read_now(const struct fl_image *image, uint64_t page, uint32_t pages, void *buf)
{
    struct iovec to = {.iov_base = buf, .iov_len = (size_t)pages * FL_PAGE_SIZE};
    if (!fl_image_is_raw(image))
        return 0;
    ssize_t got =
        preadv2(fl_pack_fd(image->packs[0]), &to, 1, (off_t)(page * FL_PAGE_SIZE), RWF_NOWAIT);
    return got > 0 ? (uint32_t)((size_t)got / FL_PAGE_SIZE) : 0;
}
