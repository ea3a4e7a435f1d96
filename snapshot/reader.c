// SPDX-License-Identifier: Apache-2.0
#include "snapshot/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/image_open.h"
#include "snapshot/io.h"
#include "snapshot/pack_list.h"
#include "snapshot/pack_name.h"

// The marker's text is fixed. With another number it is another version; any other text is damage.
static int check_marker(int dir_fd)
{
    static const char stem[] = "faultline-store ";
    char text[64] = "";
    FL_AUTO_CLOSE int fd = openat(dir_fd, FL_MARKER_NAME, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t len = read(fd, text, sizeof(text) - 1);
    if (len < 0)
        return -errno;
    if (strcmp(text, FL_MARKER_TEXT) == 0)
        return 0;
    return strncmp(text, stem, sizeof(stem) - 1) == 0 ? -EPROTONOSUPPORT : -EBADMSG;
}

static int open_dir(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

// Looks at the directory itself, whatever path led to it.
static int note(struct fl_reader *reader, enum fl_store_part part, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    reader->part[part].dev = st.st_dev;
    reader->part[part].ino = st.st_ino;
    return 0;
}

static int open_parts(struct fl_reader *reader, const char *store_dir)
{
    reader->dir_fd = open_dir(AT_FDCWD, store_dir);
    if (reader->dir_fd < 0)
        return reader->dir_fd;
    int r = check_marker(reader->dir_fd);
    if (r < 0)
        return r;
    reader->images_fd = open_dir(reader->dir_fd, FL_IMAGES_DIR);
    if (reader->images_fd < 0)
        return reader->images_fd;
    int packs_fd = open_dir(reader->dir_fd, FL_PACKS_DIR);
    if (packs_fd < 0)
        return packs_fd;
    r = note(reader, FL_PART_STORE, reader->dir_fd);
    if (r == 0)
        r = note(reader, FL_PART_IMAGES, reader->images_fd);
    if (r == 0)
        r = note(reader, FL_PART_PACKS, packs_fd);
    if (r == 0)
        r = fl_registry_new(packs_fd, &reader->registry);
    if (r < 0)
        close(packs_fd);
    return r;
}

int fl_reader_open(const char *store_dir, struct fl_reader **ret_reader)
{
    struct fl_reader *reader = calloc(1, sizeof(*reader));
    if (!reader)
        return -ENOMEM;
    reader->dir_fd = reader->images_fd = -1;
    reader->refs = 1;
    reader->dir = strdup(store_dir);
    int r = asprintf(&reader->images_dir, "%s/images", store_dir);
    if (r < 0)
        reader->images_dir = NULL;
    r = r < 0 || !reader->dir ? -ENOMEM : open_parts(reader, store_dir);
    if (r < 0) {
        fl_reader_close(reader);
        return r;
    }
    *ret_reader = reader;
    return 0;
}

void fl_reader_close(struct fl_reader *reader)
{
    if (!reader || atomic_fetch_sub(&reader->refs, 1) > 1)
        return;
    fl_cleanup_close(&reader->dir_fd);
    fl_cleanup_close(&reader->images_fd);
    if (reader->registry)
        fl_registry_unref(reader->registry);
    free(reader->images_dir);
    free(reader->dir);
    free(reader);
}

struct fl_reader *fl_reader_ref(struct fl_reader *reader)
{
    atomic_fetch_add(&reader->refs, 1);
    return reader;
}

bool fl_reader_still_there(const struct fl_reader *reader)
{
    static const char *const name[FL_PARTS] = {"", "/images", "/packs"};
    for (int i = 0; i < FL_PARTS; i++) {
        char path[PATH_MAX];
        struct stat st;
        int length = snprintf(path, sizeof(path), "%s%s", reader->dir, name[i]);
        if (length >= (int)sizeof(path) || stat(path, &st) < 0 ||
            st.st_dev != reader->part[i].dev || st.st_ino != reader->part[i].ino)
            return false;
    }
    return true;
}

const char *fl_reader_images_dir(const struct fl_reader *reader)
{
    return reader->images_dir;
}

struct listing {
    int (*fn)(void *arg, const char *name);
    void *arg;
};

static int list_file(void *arg, const char *file_name)
{
    const struct listing *listing = arg;
    char name[FL_NAME_MAX + 1];
    if (fl_image_parse_file_name(file_name, name) < 0)
        return 0;
    return listing->fn(listing->arg, name);
}

int fl_reader_list(struct fl_reader *reader, int (*fn)(void *arg, const char *name), void *arg)
{
    struct listing listing = {.fn = fn, .arg = arg};
    return fl_each_file(reader->images_fd, list_file, &listing);
}

// -ESTALE: the pack is not there.
static int open_pack(void *arg, uint64_t id, struct fl_pack **ret_pack)
{
    int r = fl_pack_open(arg, id, ret_pack);
    return r == -ENOENT ? -ESTALE : r;
}

bool fl_file_still_published(const struct fl_reader *reader, const char *file_name, int fd)
{
    struct stat open_st;
    struct stat name_st;
    return fstat(fd, &open_st) == 0 && fstatat(reader->images_fd, file_name, &name_st, 0) == 0 &&
           open_st.st_ino == name_st.st_ino && open_st.st_dev == name_st.st_dev;
}

bool fl_image_still_published(const struct fl_reader *reader, const struct fl_image *image)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    return fl_image_file_name(fl_image_name(image), file_name) == 0 &&
           fl_file_still_published(reader, file_name, image->fd);
}

static int look_for_packs(struct fl_reader *reader, int fd,
                          const struct fl_disk_image_header *header)
{
    FL_AUTO_FREE uint64_t *ids = NULL;
    int r = fl_image_file_packs(fd, header, &ids);
    for (uint32_t i = 0; r == 0 && i < header->packs; i++) {
        char path[sizeof(FL_PACKS_DIR) + FL_PACK_NAME_BYTES] = FL_PACKS_DIR "/";
        fl_pack_name(ids[i], path + sizeof(FL_PACKS_DIR));
        if (faccessat(reader->dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
            r = -ESTALE;
    }
    return r;
}

int fl_image_look(struct fl_reader *reader, const char *name)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    struct fl_disk_image_header header;
    int r = fl_image_file_name(name, file_name);
    while (r == 0) {
        FL_AUTO_CLOSE int fd =
            openat(reader->images_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            return -errno;
        r = fl_image_file_header(fd, name, &header);
        if (r == 0)
            r = look_for_packs(reader, fd, &header);
        if (r != -ESTALE || fl_file_still_published(reader, file_name, fd))
            return r;
        r = 0; // replaced or removed meanwhile, and collected
    }
    return r;
}

// A pack may vanish after its image was opened and before the pack is, because the image was
// removed or replaced and gc ran. Then the name is looked up again. If a published image lacks a
// pack, that is damage.
int fl_reader_open_finished(struct fl_reader *reader, const char *name, struct fl_image **ret_image)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    struct fl_pack_source source = {.open = open_pack, .arg = reader->registry, .any = true};
    int r = fl_image_file_name(name, file_name);
    while (r == 0) {
        FL_AUTO_CLOSE int fd =
            openat(reader->images_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            return -errno;
        r = fl_image_load(&fd, name, &source, ret_image);
        if (r != -ESTALE)
            return r;
        if (fl_file_still_published(reader, file_name, fd))
            return -EBADMSG;
        r = 0;
    }
    return r;
}

int fl_image_open(struct fl_reader *reader, const char *name, struct fl_image **ret_image)
{
    struct fl_image *image = NULL;
    int r = fl_reader_open_finished(reader, name, &image);
    if (r < 0)
        return r;
    r = fl_image_read_map(image, 0, image->entries);
    if (r < 0)
        fl_image_unref(image);
    else
        *ret_image = image;
    return r;
}
