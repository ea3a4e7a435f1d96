// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The table comes first, with the lock that says that a process packs, then a
// head for each name. They are removed in the other order, so what was left over by a kill is found
// by the heads. None of it is flushed: after a crash of the system it is left over.
#include "snapshot/offer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "snapshot/offer_head.h"
#include "snapshot/offer_left.h"
#include "snapshot/pack_with.h"
#include "snapshot/publish.h"

enum { FILE_MODE = 0640, LOOK_EVERY_US = 500, LOOK_AHEAD = 16 };

struct fl_offer {
    char **names;
    size_t count;
    bool *there; // of each name: its head
    int images_fd;
    int tmp_fd;
    char pack_file[sizeof(((struct fl_temp *)0)->name)]; // of the new pack, in tmp/
    bool has_pack;                                       // and is removed with the offer
    struct fl_offer_table table;                         // .fd -1: there is none
    uint64_t *packs;                                     // pack table of the heads
    uint32_t packs_count;
    // Stage `next`:
    uint8_t *wanted; // of each chunk
    bool *taken;
    uint64_t lowest; // chunk that is not taken
};

int fl_offer_new(const char *const *names, size_t count, struct fl_offer **ret_offer)
{
    struct fl_offer *offer = calloc(1, sizeof(*offer));
    if (!offer)
        return -ENOMEM;
    offer->images_fd = offer->tmp_fd = offer->table.fd = -1;
    offer->names = calloc(count, sizeof(char *));
    offer->there = calloc(count, sizeof(bool));
    for (size_t i = 0; offer->names && offer->there && i < count; i++) {
        offer->names[i] = strdup(names[i]);
        offer->count += offer->names[i] != NULL;
    }
    if (offer->count < count) {
        fl_offer_end(offer);
        return -ENOMEM;
    }
    *ret_offer = offer;
    return 0;
}

static void remove_head(struct fl_offer *offer, size_t i)
{
    char file[FL_OFFER_NAME_BYTES];
    if (offer->there && offer->there[i] && fl_offer_file_name(offer->names[i], file) == 0)
        unlinkat(offer->images_fd, file, 0);
    if (offer->there)
        offer->there[i] = false;
}

void fl_offer_withdraw(struct fl_offer *offer, const char *name)
{
    for (size_t i = 0; offer && i < offer->count; i++) {
        if (strcmp(offer->names[i], name) == 0)
            remove_head(offer, i);
    }
}

void fl_offer_end(struct fl_offer *offer)
{
    char file[FL_OFFER_TABLE_NAME_BYTES];
    if (!offer)
        return;
    for (size_t i = 0; i < offer->count; i++) {
        remove_head(offer, i);
        free(offer->names[i]);
    }
    if (offer->table.fd >= 0) {
        fl_offer_table_name(offer->table.id, file);
        unlinkat(offer->images_fd, file, 0);
    }
    if (offer->has_pack)
        unlinkat(offer->tmp_fd, offer->pack_file, 0);
    fl_cleanup_close(&offer->table.fd); // and so is the lock
    fl_cleanup_close(&offer->images_fd);
    fl_cleanup_close(&offer->tmp_fd);
    free(offer->names);
    free(offer->there);
    free(offer->packs);
    free(offer->wanted);
    free(offer->taken);
    free(offer);
}

// --- its files ---

static int make_table(struct fl_offer *offer, uint64_t pages)
{
    char file[FL_OFFER_TABLE_NAME_BYTES];
    uint64_t id;
    int r = fl_random_id(&id);
    if (r < 0)
        return r;
    fl_offer_table_name(id, file);
    int fd = openat(offer->images_fd, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        r = -errno;
    if (r == 0)
        r = fl_offer_table_make(fd, id, pages, &offer->table);
    if (r < 0) {
        unlinkat(offer->images_fd, file, 0);
        close(fd);
        offer->table.fd = -1;
        return r;
    }
    offer->wanted = calloc(offer->table.chunks, sizeof(*offer->wanted));
    offer->taken = calloc(offer->table.chunks, sizeof(*offer->taken));
    return offer->wanted && offer->taken ? 0 : -ENOMEM;
}

// The companions' bytes are behind their list.
static int put_companions(struct fl_offer *offer, const struct fl_pack_with *with)
{
    struct fl_disk_offer_companion list[FL_COMPANIONS_MAX] = {{.offset = 0}};
    uint64_t at = offer->table.companions_at + with->count * sizeof(list[0]);
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < with->count; i++) {
        const struct fl_pack_companion *companion = &with->companions[i];
        list[i].offset = at;
        list[i].bytes = companion->disk.bytes;
        memcpy(list[i].name, companion->disk.name, sizeof(list[i].name));
        at += list[i].bytes;
        r = fl_offer_table_copy(&offer->table, companion->fd, &list[i]);
    }
    return r < 0 ? r : fl_offer_table_write_head(&offer->table, list, with->count);
}

// The file appears whole. One that was left over is replaced.
static int place_head(struct fl_offer *offer, size_t i, int tmp_fd, const struct fl_temp *temp)
{
    char file[FL_OFFER_NAME_BYTES];
    int r = fl_offer_file_name(offer->names[i], file);
    if (r < 0)
        return r;
    fl_offer_remove_left(offer->images_fd, file);
    // Not renameat2(): there are file systems without it.
    if (linkat(tmp_fd, temp->name, offer->images_fd, file, 0) < 0)
        return -errno;
    offer->there[i] = true;
    return 0;
}

// Another process may find the same name left over, and would remove what has taken its place.
static int place_locked(struct fl_offer *offer, size_t i, struct fl_store *store,
                        const struct fl_temp *temp)
{
    int r = fl_store_lock_names(store);
    if (r < 0)
        return r;
    r = place_head(offer, i, store->tmp_fd, temp);
    fl_store_unlock_names(store);
    return r;
}

static int make_head(struct fl_offer *offer, size_t i, struct fl_store *store,
                     const struct fl_offer_plan *plan)
{
    struct fl_temp temp;
    struct fl_disk_offer_head head = {.packs = offer->packs_count,
                                      .id = offer->table.id,
                                      .bytes = plan->bytes,
                                      .pages = offer->table.pages};
    strncpy(head.name, offer->names[i], sizeof(head.name) - 1);
    strncpy(head.pack_file, plan->pack_file, sizeof(head.pack_file) - 1);
    int r = fl_temp_create(store->tmp_fd, ".live", &temp);
    if (r == 0)
        r = fl_offer_head_write(temp.fd, &head, offer->packs);
    if (r == 0)
        r = place_locked(offer, i, store, &temp);
    fl_temp_discard(&temp);
    return r;
}

static int list_packs(struct fl_offer *offer, const struct fl_offer_plan *plan)
{
    offer->packs = malloc((plan->parent_packs + 1) * sizeof(*offer->packs));
    if (!offer->packs)
        return -ENOMEM;
    offer->packs[offer->packs_count++] = plan->pack_id;
    for (uint32_t i = 0; i < plan->parent_packs; i++)
        offer->packs[offer->packs_count++] = plan->parent[i];
    return 0;
}

int fl_offer_begin(struct fl_offer *offer, struct fl_store *store, const struct fl_offer_plan *plan,
                   struct fl_error *ret_error)
{
    offer->images_fd = fcntl(store->reader->images_fd, F_DUPFD_CLOEXEC, 0);
    offer->tmp_fd = offer->images_fd < 0 ? -1 : fcntl(store->tmp_fd, F_DUPFD_CLOEXEC, 0);
    int r = offer->tmp_fd < 0 ? -errno : list_packs(offer, plan);
    snprintf(offer->pack_file, sizeof(offer->pack_file), "%s", plan->pack_file);
    if (r == 0)
        r = make_table(offer, (plan->bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE);
    if (r == 0)
        r = put_companions(offer, plan->with);
    for (size_t i = 0; r == 0 && i < offer->count; i++) {
        r = make_head(offer, i, store, plan);
        if (r == -EEXIST)
            return fl_fail_plain(ret_error, r, "another process packs an image '%s' just now",
                                 offer->names[i]);
    }
    return r < 0 ? fl_fail(ret_error, r, "cannot write to the store %s", store->dir) : 0;
}

// --- chunks ---

static int look(struct fl_offer *offer, const struct fl_pack_live *live, uint64_t chunk, bool hurry)
{
    return live->look(live->arg, chunk * FL_OFFER_CHUNK, fl_offer_chunk_pages(&offer->table, chunk),
                      hurry);
}

// 1: *ret_chunk is there; 0: none of those that are waited for is. The first of these is hurried.
static int look_at_wanted(struct fl_offer *offer, const struct fl_pack_live *live,
                          uint64_t *ret_chunk)
{
    bool hurry = true;
    int r = 0;
    for (uint64_t chunk = 0; r == 0 && chunk < offer->table.chunks; chunk++) {
        if (!offer->wanted[chunk] || offer->taken[chunk])
            continue;
        r = look(offer, live, chunk, hurry);
        hurry = false;
        *ret_chunk = chunk;
    }
    return r;
}

static int look_at_next(struct fl_offer *offer, const struct fl_pack_live *live,
                        uint64_t *ret_chunk)
{
    unsigned looks = 0;
    int r = 0;
    while (offer->lowest < offer->table.chunks && offer->taken[offer->lowest])
        offer->lowest++;
    for (uint64_t chunk = offer->lowest;
         r == 0 && chunk < offer->table.chunks && looks < LOOK_AHEAD; chunk++) {
        if (offer->taken[chunk])
            continue;
        r = look(offer, live, chunk, false);
        *ret_chunk = chunk;
        looks++;
    }
    return r;
}

int fl_offer_next(struct fl_offer *offer, const struct fl_pack_live *live, uint64_t *ret_chunk)
{
    for (;;) {
        int r = fl_offer_table_read_wanted(&offer->table, offer->wanted);
        if (r == 0)
            r = look_at_wanted(offer, live, ret_chunk);
        if (r == 0)
            r = look_at_next(offer, live, ret_chunk);
        if (r < 0)
            return r;
        if (r > 0) {
            offer->taken[*ret_chunk] = true;
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_US * 1000}, NULL);
    }
}

static uint32_t find_pack(const struct fl_offer *offer, uint64_t id)
{
    uint32_t i = 0;
    while (i < offer->packs_count && offer->packs[i] != id)
        i++;
    return i;
}

bool fl_offer_has_pack(const struct fl_offer *offer, uint64_t pack_id)
{
    return find_pack(offer, pack_id) < offer->packs_count;
}

// The image's own table lists packs as they are first used.
static int translate(const struct fl_offer *offer, const struct fl_chunk *chunk,
                     const uint64_t *packs, uint64_t *ret_entries)
{
    uint32_t last = UINT32_MAX;
    uint32_t index = 0;
    for (uint64_t page = 0; page < chunk->pages; page++) {
        uint64_t entry = chunk->hole ? 0 : chunk->entry[page];
        if (entry != 0 && fl_entry_pack(entry) != last) {
            last = fl_entry_pack(entry);
            index = find_pack(offer, packs[last]);
        }
        if (entry != 0 && index == offer->packs_count)
            return -EPROTO; // of such a pack nothing was taken
        ret_entries[page] =
            entry != 0 ? fl_entry(index, fl_entry_frame(entry), fl_entry_slot(entry)) : 0;
    }
    return 0;
}

int fl_offer_put(struct fl_offer *offer, const struct fl_chunk *chunk, uint32_t first_frame,
                 const uint64_t *packs)
{
    uint64_t entries[FL_OFFER_CHUNK];
    int r = translate(offer, chunk, packs, entries);
    if (r == 0 && !chunk->hole && chunk->frames > 0)
        r = fl_offer_table_put_frames(&offer->table, first_frame, chunk->frame, chunk->frames);
    return r < 0 ? r
                 : fl_offer_table_put_chunk(&offer->table, chunk->first_page / FL_OFFER_CHUNK,
                                            entries);
}

void fl_offer_take_pack(struct fl_offer *offer)
{
    offer->has_pack = true;
}

void fl_offer_published(struct fl_offer *offer, const char *name, const uint8_t *content_id)
{
    struct fl_identity id;
    memcpy(id.bytes, content_id, sizeof(id.bytes));
    // If it cannot be written, VMs that run from it have no content that a checkpoint could name.
    fl_offer_table_publish(&offer->table, &id);
    fl_offer_withdraw(offer, name);
}
