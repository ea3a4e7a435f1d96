// SPDX-License-Identifier: Apache-2.0
#include "snapshot/move_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/identity.h"
#include "snapshot/io.h"

#define SUFFIX ".moves"

// The frames of a move, then its bits.
struct sizes {
    size_t frames, bits;
};

static struct sizes sizes_of(uint32_t frames, uint64_t pages)
{
    return (struct sizes){
        .frames = frames * sizeof(struct fl_moved_frame),
        .bits = (size_t)(pages / 64 + 1) * sizeof(uint64_t),
    };
}

static struct sizes sizes_for(const struct fl_pack *from)
{
    return sizes_of(fl_pack_frames(from), fl_pack_pages(from));
}

// --- writing ---

static size_t list_bytes(const struct fl_move *moves, uint32_t count)
{
    size_t bytes = sizeof(struct fl_disk_moves);
    for (uint32_t i = 0; i < count; i++) {
        struct sizes sizes = sizes_for(moves[i].from);
        bytes += sizeof(struct fl_disk_move) + sizes.frames + sizes.bits;
    }
    return bytes;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

static void fill(const struct fl_move *moves, uint32_t count, uint8_t *list, size_t bytes)
{
    struct fl_disk_moves header = {.version = FL_MOVES_VERSION, .count = count};
    uint8_t *at = list + sizeof(header);
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_move *move = &moves[i];
        struct sizes sizes = sizes_for(move->from);
        const struct fl_disk_move disk = {
            .from = fl_pack_id(move->from),
            .to = move->pack_id,
            .pages = fl_pack_pages(move->from),
            .frames = fl_pack_frames(move->from),
        };
        at = put(at, &disk, sizeof(disk));
        at = put(at, move->frames, sizes.frames);
        at = put(at, move->bits, sizes.bits);
    }
    memcpy(header.magic, fl_magic_moves, sizeof(header.magic));
    header.moves_checksum = fl_checksum(list + sizeof(header), bytes - sizeof(header));
    header.checksum = fl_checksum(&header, offsetof(struct fl_disk_moves, checksum));
    memcpy(list, &header, sizeof(header));
}

// Locked and complete before it has its name: so nobody takes it from its writer.
static int name_list(struct fl_temp *list)
{
    char name[sizeof(list->name) + sizeof(SUFFIX)];
    snprintf(name, sizeof(name), "%s" SUFFIX, list->name);
    if (renameat(list->dir_fd, list->name, list->dir_fd, name) < 0)
        return -errno;
    memcpy(list->name, name, strlen(name) + 1);
    return 0;
}

// It is not flushed: what a host that fails leaves of it is a list or damage.
int fl_move_list_write(struct fl_store *store, const struct fl_move *moves, uint32_t count,
                       struct fl_temp *ret_list)
{
    size_t bytes = list_bytes(moves, count);
    FL_AUTO_FREE uint8_t *list = malloc(bytes);
    *ret_list = (struct fl_temp){.fd = -1};
    if (!list)
        return -ENOMEM;
    fill(moves, count, list, bytes);
    int r = fl_temp_create(store->tmp_fd, "", ret_list);
    if (r == 0 && flock(ret_list->fd, LOCK_EX | LOCK_NB) < 0)
        r = -errno;
    if (r == 0)
        r = fl_pwrite_full(ret_list->fd, list, bytes, 0);
    return r < 0 ? r : name_list(ret_list);
}

// --- taking ---

struct cursor {
    const uint8_t *at;
    size_t left;
};

static const void *take(struct cursor *cursor, size_t bytes)
{
    const uint8_t *at = cursor->at;
    if (bytes > cursor->left)
        return NULL;
    cursor->at += bytes;
    cursor->left -= bytes;
    return at;
}

// Compares `count` pages of the old pack with those that the new one has from `page` of `frame` on.
static int check_pages(const struct fl_pack *to, uint64_t frame, uint64_t page,
                       const struct fl_identity *expected, uint32_t count)
{
    struct fl_identity identity[FL_FRAME_PAGES];
    for (uint32_t i = 0; i < count;) {
        uint64_t at = frame + (page + i) / FL_FRAME_PAGES;
        uint32_t slot = (uint32_t)((page + i) % FL_FRAME_PAGES);
        uint32_t step = count - i < FL_FRAME_PAGES - slot ? count - i : FL_FRAME_PAGES - slot;
        if (at >= fl_pack_frames(to) || slot + step > fl_pack_frame_pages(to, (uint32_t)at))
            return -EBADMSG;
        int r = fl_pack_read_identities(to, (uint32_t)at, slot, step, identity);
        if (r < 0)
            return r;
        if (memcmp(identity, &expected[i], step * sizeof(*identity)) != 0)
            return -EBADMSG;
        i += step;
    }
    return 0;
}

static int check_frame(struct fl_move *move, const struct fl_pack *to, uint32_t frame,
                       uint64_t first)
{
    struct fl_identity identity[FL_FRAME_PAGES_MAX];
    uint32_t pages = fl_pack_frame_pages(move->from, frame);
    uint32_t needed = 0;
    int r = fl_pack_read_identities(move->from, frame, 0, pages, identity);
    for (uint32_t slot = 0; r == 0 && slot < pages; slot++) {
        if (fl_needed_bit(move->bits, first + slot))
            identity[needed++] = identity[slot];
    }
    const struct fl_moved_frame *moved = &move->frames[frame];
    move->pages += needed;
    return r < 0 ? r : check_pages(to, moved->frame, moved->slot, identity, needed);
}

static int check_move(struct fl_move *move, const struct fl_pack *to)
{
    uint64_t first = 0;
    int r = fl_pack_know_all(move->from);
    if (r == 0)
        r = fl_pack_know_all(to);
    for (uint32_t i = 0; r == 0 && i < fl_pack_frames(move->from); i++) {
        if (move->frames[i].frame != UINT32_MAX)
            r = move->frames[i].slot < FL_FRAME_PAGES ? check_frame(move, to, i, first) : -EBADMSG;
        first += fl_pack_frame_pages(move->from, i);
    }
    move->bytes = fl_pack_file_bytes(to);
    return r;
}

// A move as it is in the list.
struct listed {
    const struct fl_disk_move *disk;
    const void *frames, *bits;
    struct sizes sizes;
};

static int take_listed(struct cursor *cursor, struct listed *ret_listed)
{
    struct listed listed = {.disk = take(cursor, sizeof(*listed.disk))};
    if (!listed.disk || listed.disk->pages / 64 >= cursor->left)
        return -EBADMSG;
    listed.sizes = sizes_of(listed.disk->frames, listed.disk->pages);
    listed.frames = take(cursor, listed.sizes.frames);
    listed.bits = listed.frames ? take(cursor, listed.sizes.bits) : NULL;
    *ret_listed = listed;
    return listed.bits ? 0 : -EBADMSG;
}

static int copy_move(const struct listed *listed, struct fl_move *move)
{
    if (fl_pack_frames(move->from) != listed->disk->frames ||
        fl_pack_pages(move->from) != listed->disk->pages)
        return -EBADMSG;
    move->frames = malloc(listed->sizes.frames);
    move->own_bits = malloc(listed->sizes.bits);
    if (!move->frames || !move->own_bits)
        return -ENOMEM;
    memcpy(move->frames, listed->frames, listed->sizes.frames);
    memcpy(move->own_bits, listed->bits, listed->sizes.bits);
    move->bits = move->own_bits;
    return 0;
}

static int make_move(struct fl_store *store, const struct listed *listed, struct fl_move *ret_move)
{
    struct fl_move move = {.pack_id = listed->disk->to};
    struct fl_pack *to = NULL;
    int r = fl_pack_open(store->reader->registry, listed->disk->from, &move.from);
    if (r < 0)
        return r;
    r = copy_move(listed, &move);
    if (r == 0)
        r = fl_pack_open(store->reader->registry, move.pack_id, &to);
    if (r == 0)
        r = check_move(&move, to);
    if (to)
        fl_pack_unref(to);
    if (r < 0)
        fl_move_end(&move);
    else
        *ret_move = move;
    return r;
}

// Packs that are gone or damaged by now are left out.
static int take_moves(struct fl_store *store, struct cursor *cursor, uint32_t listed_count,
                      struct fl_move *moves)
{
    int count = 0;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < listed_count; i++) {
        struct listed listed;
        r = take_listed(cursor, &listed);
        if (r < 0)
            break;
        r = make_move(store, &listed, &moves[count]);
        count += r == 0;
        if (r == -ENOENT || r == -EBADMSG || r == -EPROTONOSUPPORT)
            r = 0;
    }
    if (r == 0)
        return count;
    while (count > 0)
        fl_move_end(&moves[--count]);
    return r;
}

static int take_list(struct fl_store *store, int fd, struct fl_move *moves)
{
    struct fl_disk_moves header;
    uint64_t bytes;
    int r = fl_read_header(fd, fl_magic_moves, FL_MOVES_VERSION, &header, sizeof(header), &bytes);
    if (r < 0)
        return r;
    struct cursor cursor = {.left = bytes - sizeof(header)};
    FL_AUTO_FREE uint8_t *list = malloc(cursor.left + 1);
    if (!list)
        return -ENOMEM;
    cursor.at = list;
    r = fl_pread_full(fd, list, cursor.left, sizeof(header));
    if (r == 0 &&
        (header.count > FL_MOVES_MOST || header.moves_checksum != fl_checksum(list, cursor.left)))
        r = -EBADMSG;
    return r < 0 ? r : take_moves(store, &cursor, header.count, moves);
}

static bool is_list(const char *name)
{
    size_t length = strlen(name);
    size_t end = sizeof(SUFFIX) - 1;
    return length > end && length < sizeof(((struct fl_temp *)NULL)->name) &&
           strcmp(name + length - end, SUFFIX) == 0;
}

int fl_move_list_take(struct fl_store *store, const char *name,
                      struct fl_move ret_moves[FL_MOVES_MOST], struct fl_temp *ret_list)
{
    struct stat st;
    if (!is_list(name))
        return -EAGAIN;
    struct fl_temp list = {
        .dir_fd = store->tmp_fd,
        .fd = openat(store->tmp_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK),
    };
    if (list.fd < 0)
        return errno == ENOENT || errno == ELOOP ? -EAGAIN : -errno;
    memcpy(list.name, name, strlen(name) + 1);
    int r = flock(list.fd, LOCK_EX | LOCK_NB) < 0 || fstat(list.fd, &st) < 0 || st.st_nlink == 0
                ? -EAGAIN
                : take_list(store, list.fd, ret_moves);
    if (r < 0)
        fl_move_list_leave(&list);
    else
        *ret_list = list;
    return r == -EBADMSG || r == -EPROTONOSUPPORT ? -EAGAIN : r;
}

// The name goes before the lock: then nobody takes it over.
void fl_move_list_end(struct fl_temp *list)
{
    if (list->name[0] != '\0')
        unlinkat(list->dir_fd, list->name, 0);
    fl_move_list_leave(list);
}

void fl_move_list_leave(struct fl_temp *list)
{
    list->name[0] = '\0';
    fl_temp_discard(list);
}
