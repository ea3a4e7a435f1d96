// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. An image on offer has these files: the head, which is its name; the table;
// the pack that is being written, in tmp/ and then in packs/; and the parent's packs. When it is
// published, the image's own file appears first, then the head and the table are removed. So who
// does not find one of them looks for the image once more, which is there then, or has failed.
#include "snapshot/offer_open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/image_open.h"
#include "snapshot/io.h"
#include "snapshot/offer_head.h"
#include "snapshot/pack_list.h"
#include "snapshot/pack_name.h"

enum { OPEN_FLAGS = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, ATTEMPTS = 4 };

static int gone(int error)
{
    return error == ENOENT ? -EAGAIN : -error;
}

int fl_offer_open_table(struct fl_reader *reader, const struct fl_disk_offer_head *head,
                        struct fl_offer_table *ret_table)
{
    char name[FL_OFFER_TABLE_NAME_BYTES];
    fl_offer_table_name(head->id, name);
    bool may_write = true;
    int fd = openat(reader->images_fd, name, O_RDWR | OPEN_FLAGS);
    if (fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        may_write = false;
        fd = openat(reader->images_fd, name, O_RDONLY | OPEN_FLAGS);
    }
    if (fd < 0)
        return gone(errno);
    int r = fl_offer_table_open(fd, head->id, head->pages, may_write, ret_table);
    if (r < 0)
        close(fd);
    return r;
}

static int open_new_pack(struct fl_reader *reader, const struct fl_disk_offer_head *head,
                         uint64_t id)
{
    char path[sizeof(FL_TMP_DIR) + sizeof(head->pack_file)];
    char published[sizeof(FL_PACKS_DIR) + FL_PACK_NAME_BYTES] = FL_PACKS_DIR "/";
    snprintf(path, sizeof(path), FL_TMP_DIR "/%s", head->pack_file);
    fl_pack_name(id, published + sizeof(FL_PACKS_DIR));
    int fd = openat(reader->dir_fd, path, O_RDONLY | OPEN_FLAGS);
    if (fd < 0 && errno == ENOENT)
        fd = openat(reader->dir_fd, published, O_RDONLY | OPEN_FLAGS);
    return fd < 0 ? gone(errno) : fd;
}

static struct fl_disk_image_header header_of(const struct fl_disk_offer_head *head)
{
    struct fl_disk_image_header header = {
        .version = FL_IMAGE_VERSION, .packs = head->packs, .bytes = head->bytes};
    header.pages = head->pages;
    memcpy(header.name, head->name, strlen(head->name) + 1); // it is valid
    return header;
}

static void close_packs(struct fl_pack **packs, uint32_t count)
{
    for (uint32_t i = 0; i < count && packs[i]; i++)
        fl_pack_unref(packs[i]);
    free(packs);
}

// Takes over the table (from malloc), and the head's descriptor if it succeeds.
static int make_image(int *fd, const struct fl_disk_offer_head *head, struct fl_offer_table *table,
                      struct fl_pack **packs, struct fl_image **ret_image)
{
    struct fl_disk_image_header header = header_of(head);
    int r = fl_image_new_offered(&header, table, packs, ret_image);
    if (r == 0) {
        (*ret_image)->fd = *fd;
        *fd = -1;
    }
    return r;
}

// --- by name ---

static int open_packs(struct fl_reader *reader, const struct fl_disk_offer_head *head,
                      const uint64_t *ids, const struct fl_offer_table *table,
                      struct fl_pack ***ret_packs)
{
    struct fl_pack **packs = calloc(head->packs, sizeof(struct fl_pack *));
    if (!packs)
        return -ENOMEM;
    int fd = open_new_pack(reader, head, ids[0]);
    int r = fd < 0 ? fd : fl_pack_open_offered(fd, ids[0], table, &packs[0]);
    for (uint32_t i = 1; r == 0 && i < head->packs; i++)
        r = fl_pack_open(reader->registry, ids[i], &packs[i]);
    if (r < 0) {
        close_packs(packs, head->packs);
        return r == -ENOENT ? -EAGAIN : r;
    }
    *ret_packs = packs;
    return 0;
}

static int open_offer(struct fl_reader *reader, int *fd, const char *name,
                      struct fl_image **ret_image)
{
    struct fl_disk_offer_head head;
    struct fl_pack **packs;
    FL_AUTO_FREE uint64_t *ids = NULL;
    int r = fl_offer_head_read(*fd, name, &head, &ids);
    struct fl_offer_table *table = r == 0 ? calloc(1, sizeof(*table)) : NULL;
    if (r < 0 || !table)
        return r < 0 ? r : -ENOMEM;
    r = fl_offer_open_table(reader, &head, table);
    if (r < 0) {
        free(table);
        return r;
    }
    r = fl_offer_table_alive(table->fd) ? 0 : -EOWNERDEAD;
    if (r == 0)
        r = open_packs(reader, &head, ids, table, &packs);
    if (r < 0) {
        close(table->fd);
        free(table);
        return r;
    }
    return make_image(fd, &head, table, packs, ret_image);
}

static int open_named(struct fl_reader *reader, const char *name, struct fl_image **ret_image)
{
    char file[FL_OFFER_NAME_BYTES];
    int r = fl_offer_file_name(name, file);
    if (r < 0)
        return r;
    FL_AUTO_CLOSE int fd = openat(reader->images_fd, file, O_RDONLY | OPEN_FLAGS);
    return fd < 0 ? -errno : open_offer(reader, &fd, name, ret_image);
}

int fl_image_open_lazy(struct fl_reader *reader, const char *name, struct fl_image **ret_image)
{
    int r = -EAGAIN;
    for (unsigned attempt = 0; r == -EAGAIN && attempt < ATTEMPTS; attempt++) {
        r = fl_reader_open_finished(reader, name, ret_image);
        if (r == -ENOENT)
            r = open_named(reader, name, ret_image);
    }
    return r == -EAGAIN ? -EOWNERDEAD : r; // something of it was left over
}

// --- by descriptors ---

static bool is_head(int fd)
{
    uint8_t magic[FL_MAGIC_BYTES];
    uint64_t bytes; // reading a pipe could wait for ever
    return fl_file_size(fd, &bytes) == 0 && fl_pread_full(fd, magic, sizeof(magic), 0) == 0 &&
           memcmp(magic, fl_magic_offer, sizeof(magic)) == 0;
}

// The descriptor came read-only: through another one what is waited for can be said.
static bool reopen(int *fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
    int own = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (own < 0)
        return (fcntl(*fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    close(*fd);
    *fd = own;
    return true;
}

enum { FILE_HEAD, FILE_TABLE, FILE_PACKS };

// Each descriptor that is taken becomes -1 in `fd`.
static int take_files(int *fd, uint32_t count, struct fl_offer_table *table, struct fl_pack **packs,
                      struct fl_disk_offer_head *ret_head)
{
    FL_AUTO_FREE uint64_t *ids = NULL;
    int r = fl_offer_head_read(fd[FILE_HEAD], NULL, ret_head, &ids);
    if (r == 0 && (uint64_t)ret_head->packs + FILE_PACKS != count)
        r = -EINVAL;
    if (r < 0)
        return r;
    bool may_write = reopen(&fd[FILE_TABLE]);
    r = fl_offer_table_open(fd[FILE_TABLE], ret_head->id, ret_head->pages, may_write, table);
    for (uint32_t i = 0; r == 0 && i < ret_head->packs; i++) {
        int pack = fd[FILE_PACKS + i];
        fd[FILE_PACKS + i] = -1;
        r = i == 0 ? fl_pack_open_offered(pack, ids[i], table, &packs[i])
                   : fl_pack_open_fd(pack, ids[i], &packs[i]);
    }
    return r;
}

static int open_copy(int *fd, uint32_t count, struct fl_image **ret_image)
{
    struct fl_disk_offer_head head;
    struct fl_offer_table *table = calloc(1, sizeof(*table));
    struct fl_pack **packs = calloc(count, sizeof(struct fl_pack *));
    int r = !table || !packs ? -ENOMEM : take_files(fd, count, table, packs, &head);
    if (r < 0) {
        if (packs)
            close_packs(packs, count);
        free(table);
        return r;
    }
    fd[FILE_TABLE] = -1; // the image's, as the packs are
    return make_image(&fd[FILE_HEAD], &head, table, packs, ret_image);
}

static int open_files(const int *fds, uint32_t count, struct fl_image **ret_image)
{
    FL_AUTO_FREE int *fd = malloc(count * sizeof(*fd));
    int r = !fd ? -ENOMEM : count < FILE_PACKS + 1 ? -EINVAL : 0;
    if (fd)
        memcpy(fd, fds, count * sizeof(*fd));
    if (r == 0)
        r = open_copy(fd, count, ret_image);
    for (uint32_t i = 0; i < count; i++) {
        int left = fd ? fd[i] : fds[i];
        fl_cleanup_close(&left);
    }
    return r;
}

int fl_image_open_files(const int *fds, uint32_t count, struct fl_image **ret_image)
{
    return count > 0 && is_head(fds[0]) ? open_files(fds, count, ret_image)
                                        : fl_image_load_files(fds, count, ret_image);
}

// --- all of them ---

struct listing {
    struct fl_reader *reader;
    int (*fn)(void *arg, const char *name);
    void *arg;
};

static bool is_finished(const struct fl_reader *reader, const char *name)
{
    char file[FL_IMAGE_NAME_BYTES];
    return fl_image_file_name(name, file) == 0 &&
           faccessat(reader->images_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool is_packed_now(struct fl_reader *reader, const char *file, const char *name)
{
    struct fl_disk_offer_head head;
    struct fl_offer_table table;
    FL_AUTO_CLOSE int fd = openat(reader->images_fd, file, O_RDONLY | OPEN_FLAGS);
    if (fd < 0 || fl_offer_head_read(fd, name, &head, NULL) < 0 ||
        fl_offer_open_table(reader, &head, &table) < 0)
        return false;
    bool alive = fl_offer_table_alive(table.fd);
    close(table.fd);
    return alive;
}

static int list_offer(void *arg, const char *file)
{
    const struct listing *listing = arg;
    char name[FL_NAME_MAX + 1];
    if (fl_parse_file_name(file, FL_OFFER_SUFFIX, name) < 0 || is_finished(listing->reader, name) ||
        !is_packed_now(listing->reader, file, name))
        return 0;
    return listing->fn(listing->arg, name);
}

int fl_reader_list_offered(struct fl_reader *reader, int (*fn)(void *arg, const char *name),
                           void *arg)
{
    struct listing listing = {.reader = reader, .fn = fn, .arg = arg};
    return fl_each_file(reader->images_fd, list_offer, &listing);
}
