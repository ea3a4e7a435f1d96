// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "snapshot/frame.h"
#include "snapshot/io.h"
#include "snapshot/pack_name.h"
#include "snapshot/pack_table.h"
#include "snapshot/scratch.h"

struct fl_pack {
    uint64_t id;
    int fd;
    uint32_t frames;
    uint64_t pages;
    uint64_t file_bytes;
    struct fl_pack_table *table; // NULL: a raw file

    struct fl_registry *registry; // NULL: the pack has one owner, as a raw file has
    // The registry's lock covers these two; a pack of one owner needs none.
    unsigned refs;
    LIST_ENTRY(fl_pack) link;
};

#define BUCKETS 256u
LIST_HEAD(pack_list, fl_pack);

struct fl_registry {
    int packs_fd;
    pthread_mutex_t lock;
    // lock covers these; it is never held across I/O.
    unsigned refs; // one of the reader, one of each pack
    struct pack_list buckets[BUCKETS];
};

static void pack_free(struct fl_pack *pack)
{
    if (pack->fd >= 0)
        close(pack->fd);
    fl_pack_table_close(pack->table);
    free(pack);
}

static int load_pack(struct fl_pack *pack)
{
    int r = fl_file_size(pack->fd, &pack->file_bytes);
    if (r == 0)
        r = fl_pack_table_open(pack->fd, pack->id, pack->file_bytes, &pack->table);
    if (r < 0)
        return r == -EINVAL ? -EBADMSG : r;
    pack->frames = pack->table->frames;
    pack->pages = pack->table->pages;
    return 0;
}

int fl_pack_open_fd(int fd, uint64_t id, struct fl_pack **ret_pack)
{
    struct fl_pack *pack = calloc(1, sizeof(*pack));
    if (!pack) {
        close(fd);
        return -ENOMEM;
    }
    *pack = (struct fl_pack){.id = id, .fd = fd, .refs = 1};
    int r = load_pack(pack);
    if (r < 0) {
        pack_free(pack);
        return r;
    }
    *ret_pack = pack;
    return 0;
}

int fl_pack_open_offered(int fd, uint64_t id, const struct fl_offer_table *offer,
                         struct fl_pack **ret_pack)
{
    struct fl_pack *pack = calloc(1, sizeof(*pack));
    if (!pack) {
        close(fd);
        return -ENOMEM;
    }
    *pack = (struct fl_pack){.id = id, .fd = fd, .refs = 1, .frames = offer->frames};
    int r = fl_pack_table_open_offered(fd, id, offer, &pack->table);
    if (r < 0) {
        pack_free(pack);
        return r;
    }
    *ret_pack = pack;
    return 0;
}

static int open_named(struct fl_registry *registry, uint64_t id, struct fl_pack **ret_pack)
{
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(id, name);
    int fd = openat(registry->packs_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = fl_pack_open_fd(fd, id, ret_pack);
    if (r == 0)
        (*ret_pack)->registry = registry;
    return r;
}

int fl_registry_new(int packs_fd, struct fl_registry **ret_registry)
{
    struct fl_registry *registry = calloc(1, sizeof(*registry));
    if (!registry)
        return -ENOMEM;
    registry->packs_fd = packs_fd;
    registry->refs = 1;
    pthread_mutex_init(&registry->lock, NULL);
    *ret_registry = registry;
    return 0;
}

static void registry_free(struct fl_registry *registry)
{
    close(registry->packs_fd);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

void fl_registry_unref(struct fl_registry *registry)
{
    pthread_mutex_lock(&registry->lock);
    bool last = --registry->refs == 0;
    pthread_mutex_unlock(&registry->lock);
    if (last)
        registry_free(registry);
}

// Call it under the registry's lock.
static struct fl_pack *find_ref(struct fl_registry *registry, uint64_t id)
{
    struct fl_pack *pack;
    LIST_FOREACH(pack, &registry->buckets[id % BUCKETS], link)
    {
        if (pack->id == id) {
            pack->refs++;
            return pack;
        }
    }
    return NULL;
}

static struct fl_pack *lookup(struct fl_registry *registry, uint64_t id)
{
    pthread_mutex_lock(&registry->lock);
    struct fl_pack *pack = find_ref(registry, id);
    pthread_mutex_unlock(&registry->lock);
    return pack;
}

int fl_pack_open(struct fl_registry *registry, uint64_t id, struct fl_pack **ret_pack)
{
    struct fl_pack *pack = lookup(registry, id);
    if (pack) {
        *ret_pack = pack;
        return 0;
    }
    int r = open_named(registry, id, &pack);
    if (r < 0)
        return r;
    // Another thread may have opened it meanwhile: the first in the list stays.
    pthread_mutex_lock(&registry->lock);
    struct fl_pack *other = find_ref(registry, id);
    if (!other) {
        LIST_INSERT_HEAD(&registry->buckets[id % BUCKETS], pack, link);
        registry->refs++;
    }
    pthread_mutex_unlock(&registry->lock);
    if (other)
        pack_free(pack);
    *ret_pack = other ? other : pack;
    return 0;
}

int fl_pack_open_raw(int fd, uint64_t bytes, struct fl_pack **ret_pack)
{
    static atomic_uint_fast64_t next = FL_PACK_ID_RAW;
    uint64_t pages = (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE;
    uint64_t frames = (pages + FL_FRAME_PAGES - 1) / FL_FRAME_PAGES;
    if (bytes > INT64_MAX || frames > UINT32_MAX)
        return -EFBIG;
    struct fl_pack *pack = calloc(1, sizeof(*pack));
    if (!pack)
        return -ENOMEM;
    pack->id = atomic_fetch_add(&next, 1);
    pack->fd = fd;
    pack->frames = (uint32_t)frames;
    pack->pages = pages;
    pack->file_bytes = bytes;
    *ret_pack = pack;
    return 0;
}

void fl_pack_unref(struct fl_pack *pack)
{
    struct fl_registry *registry = pack->registry;
    if (!registry) {
        pack_free(pack);
        return;
    }
    pthread_mutex_lock(&registry->lock);
    bool last = --pack->refs == 0;
    if (last)
        LIST_REMOVE(pack, link);
    pthread_mutex_unlock(&registry->lock);
    if (last) {
        pack_free(pack);
        fl_registry_unref(registry);
    }
}

uint64_t fl_pack_id(const struct fl_pack *pack)
{
    return pack->id;
}

bool fl_pack_is_raw(const struct fl_pack *pack)
{
    return pack->id >= FL_PACK_ID_RAW;
}

int fl_pack_fd(const struct fl_pack *pack)
{
    return pack->fd;
}

uint32_t fl_pack_frames(const struct fl_pack *pack)
{
    return pack->frames;
}

uint64_t fl_pack_pages(const struct fl_pack *pack)
{
    return pack->pages;
}

uint64_t fl_pack_file_bytes(const struct fl_pack *pack)
{
    return pack->file_bytes;
}

static uint32_t raw_frame_pages(const struct fl_pack *pack, uint32_t frame)
{
    uint64_t left = pack->pages - (uint64_t)frame * FL_FRAME_PAGES;
    return left < FL_FRAME_PAGES ? (uint32_t)left : FL_FRAME_PAGES;
}

// Returns NULL if there is no such frame, or sets *ret_error (may be NULL) if it is not known.
static const struct fl_disk_frame *find_frame(const struct fl_pack *pack, uint32_t frame,
                                              int *ret_error)
{
    const struct fl_frame_entry *entry = fl_pack_table_find(pack->table, frame, ret_error);
    return entry ? &entry->disk : NULL;
}

int fl_pack_know_frame(const struct fl_pack *pack, uint32_t frame)
{
    int r = 0;
    if (pack->table)
        fl_pack_table_find(pack->table, frame, &r);
    return r;
}

int fl_pack_know_all(const struct fl_pack *pack)
{
    int r = 0;
    for (uint64_t frame = 0; r == 0 && frame < pack->frames; frame += FL_PIECE_FRAMES)
        r = fl_pack_know_frame(pack, (uint32_t)frame);
    return r;
}

uint32_t fl_pack_frame_pages(const struct fl_pack *pack, uint32_t frame)
{
    if (frame >= pack->frames)
        return 0;
    if (!pack->table)
        return raw_frame_pages(pack, frame);
    const struct fl_disk_frame *disk = find_frame(pack, frame, NULL);
    return disk ? disk->pages : 0;
}

uint32_t fl_pack_frame_stored(const struct fl_pack *pack, uint32_t frame)
{
    const struct fl_disk_frame *disk = pack->table ? find_frame(pack, frame, NULL) : NULL;
    return disk ? disk->stored : 0;
}

int fl_pack_frame_entry(const struct fl_pack *pack, uint32_t frame, struct fl_disk_frame *ret_entry)
{
    int r = 0;
    const struct fl_disk_frame *disk = pack->table ? find_frame(pack, frame, &r) : NULL;
    if (disk)
        *ret_entry = *disk;
    return disk ? 0 : r < 0 ? r : -EINVAL;
}

// The file's last page may be partial.
static struct fl_frame_place raw_frame_place(const struct fl_pack *pack, uint32_t frame)
{
    uint64_t offset = (uint64_t)frame * FL_FRAME_PAGES * FL_PAGE_SIZE;
    uint32_t room = raw_frame_pages(pack, frame) * FL_PAGE_SIZE;
    uint64_t left = pack->file_bytes - offset;
    return (struct fl_frame_place){
        .fd = pack->fd, .stored = left < room ? (uint32_t)left : room, .offset = offset};
}

// The rest of a partial page is zeros.
static void end_raw_frame(const struct fl_pack *pack, uint32_t frame, uint32_t stored, char *buf)
{
    memset(buf + stored, 0, (size_t)raw_frame_pages(pack, frame) * FL_PAGE_SIZE - stored);
}

// If the file has become shorter since it was opened that is an I/O error, not zeros.
static int read_raw_frame(const struct fl_pack *pack, uint32_t frame, char *buf)
{
    struct fl_frame_place place = raw_frame_place(pack, frame);
    int r = fl_pread_full(pack->fd, buf, place.stored, place.offset);
    if (r < 0)
        return r == -EBADMSG ? -ENODATA : r;
    end_raw_frame(pack, frame, place.stored, buf);
    return 0;
}

int fl_pack_frame_place(const struct fl_pack *pack, uint32_t frame,
                        struct fl_frame_place *ret_place)
{
    if (frame >= pack->frames)
        return -EINVAL;
    if (!pack->table) {
        *ret_place = raw_frame_place(pack, frame);
        return 0;
    }
    int r = 0;
    const struct fl_disk_frame *disk = find_frame(pack, frame, &r);
    if (!disk)
        return r;
    *ret_place =
        (struct fl_frame_place){.fd = pack->fd, .stored = disk->stored, .offset = disk->offset};
    return 0;
}

int fl_pack_unpack_frame(const struct fl_pack *pack, uint32_t frame, const void *stored, void *buf)
{
    if (frame >= pack->frames)
        return -EINVAL;
    if (pack->table) {
        int r = 0;
        const struct fl_disk_frame *disk = find_frame(pack, frame, &r);
        return disk ? fl_frame_decode(disk, stored, buf) : r;
    }
    uint32_t bytes = raw_frame_place(pack, frame).stored;
    memcpy(buf, stored, bytes);
    end_raw_frame(pack, frame, bytes, buf);
    return 0;
}

int fl_pack_read_frame(const struct fl_pack *pack, uint32_t frame, void *buf)
{
    if (frame >= pack->frames)
        return -EINVAL;
    if (!pack->table)
        return read_raw_frame(pack, frame, buf);
    int r = 0;
    const struct fl_disk_frame *disk = find_frame(pack, frame, &r);
    if (!disk)
        return r;
    void *stored = disk->codec == FL_CODEC_RAW ? buf : fl_thread_scratch(disk->stored);
    if (!stored)
        return -ENOMEM;
    r = fl_pread_full(pack->fd, stored, disk->stored, disk->offset);
    if (r < 0)
        return r == -EBADMSG ? -ENODATA : r; // the file ends before the frame does
    return fl_frame_decode(disk, stored, buf);
}

void fl_pack_salvage_frame(const struct fl_pack *pack, uint32_t frame, void *buf)
{
    if (frame >= pack->frames || !pack->table)
        return;
    const struct fl_disk_frame *disk = find_frame(pack, frame, NULL);
    FL_AUTO_FREE void *stored = disk ? calloc(1, disk->stored) : NULL;
    if (!stored)
        return;
    (void)fl_pread_full(pack->fd, stored, disk->stored, disk->offset); // zeros where it cannot
    fl_frame_salvage(disk, stored, buf);
}

int fl_pack_read_identities(const struct fl_pack *pack, uint32_t frame, uint32_t slot,
                            uint32_t count, struct fl_identity *ret_identities)
{
    if (!pack->table || frame >= pack->frames)
        return -EINVAL;
    int r = 0;
    const struct fl_frame_entry *entry = fl_pack_table_find(pack->table, frame, &r);
    if (!entry)
        return r;
    uint64_t first = entry->first_page + slot;
    if (first > pack->pages || count > pack->pages - first)
        return -EINVAL;
    return fl_pread_full(pack->fd, ret_identities, (size_t)count * FL_IDENTITY_BYTES,
                         pack->table->identity_offset + first * FL_IDENTITY_BYTES);
}

int fl_pack_page_number(const struct fl_pack *pack, uint32_t frame, uint32_t slot,
                        uint64_t *ret_number)
{
    int r = 0;
    const struct fl_frame_entry *entry =
        pack->table ? fl_pack_table_find(pack->table, frame, &r) : NULL;
    if (!entry || slot >= entry->disk.pages)
        return r < 0 ? r : -EINVAL;
    *ret_number = entry->first_page + slot;
    return 0;
}

int fl_pack_check_identities(const struct fl_pack *pack)
{
    return fl_pack_table_check_identities(pack->table);
}
