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
#include <xxhash.h>

#include "snapshot/frame.h"
#include "snapshot/io.h"
#include "snapshot/pack_name.h"
#include "snapshot/scratch.h"

struct frame_entry {
    struct fl_disk_frame disk;
    uint64_t first_page; // of this frame among the pack's pages
};

struct fl_pack {
    uint64_t id;
    int fd;
    uint32_t frames;
    uint64_t pages;
    uint64_t file_bytes;
    struct frame_entry *table; // NULL: a raw file
    uint64_t identity_offset;
    uint64_t identity_checksum;

    struct fl_registry *registry; // NULL: it has one owner, as a raw file has
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
    unsigned refs; // the reader's and one for each pack
    struct pack_list buckets[BUCKETS];
};

static int check_header(int fd, uint64_t id)
{
    struct fl_disk_pack_header header;
    int r = fl_pread_full(fd, &header, sizeof(header), 0);
    if (r < 0)
        return r;
    if (memcmp(header.magic, fl_magic_pack, sizeof(header.magic)) != 0)
        return -EBADMSG;
    if (header.checksum != fl_checksum(&header, offsetof(struct fl_disk_pack_header, checksum)))
        return -EBADMSG;
    if (header.version != FL_FORMAT_VERSION)
        return -EPROTONOSUPPORT;
    return header.pack_id == id ? 0 : -EBADMSG;
}

static int read_footer(int fd, uint64_t id, uint64_t file_bytes,
                       struct fl_disk_pack_footer *ret_footer)
{
    struct fl_disk_pack_footer footer;
    const uint64_t fixed = sizeof(struct fl_disk_pack_header) + sizeof(footer);
    if (file_bytes < fixed || file_bytes > INT64_MAX)
        return -EBADMSG;
    int r = fl_pread_full(fd, &footer, sizeof(footer), file_bytes - sizeof(footer));
    if (r < 0)
        return r;
    if (memcmp(footer.magic, fl_magic_footer, sizeof(footer.magic)) != 0)
        return -EBADMSG;
    if (footer.checksum != fl_checksum(&footer, offsetof(struct fl_disk_pack_footer, checksum)))
        return -EBADMSG;
    if (footer.version != FL_FORMAT_VERSION)
        return -EPROTONOSUPPORT;
    // The product cannot wrap: pages is bounded by the file first.
    uint64_t table = (uint64_t)footer.frames * sizeof(struct fl_disk_frame);
    if (footer.pack_id != id || footer.frames == 0 ||
        footer.pages > file_bytes / FL_IDENTITY_BYTES ||
        table + footer.pages * FL_IDENTITY_BYTES > file_bytes - fixed ||
        footer.table_offset !=
            file_bytes - sizeof(footer) - footer.pages * FL_IDENTITY_BYTES - table)
        return -EBADMSG;
    *ret_footer = footer;
    return 0;
}

// Verifies the table's checksum, then every field of it.
static int load_table(struct fl_pack *pack, const struct fl_disk_pack_footer *footer)
{
    size_t bytes = footer->frames * sizeof(struct fl_disk_frame);
    FL_AUTO_FREE struct fl_disk_frame *disk = malloc(bytes);
    pack->table = malloc(footer->frames * sizeof(*pack->table));
    if (!disk || !pack->table)
        return -ENOMEM;
    int r = fl_pread_full(pack->fd, disk, bytes, footer->table_offset);
    if (r < 0)
        return r;
    if (fl_checksum(disk, bytes) != footer->table_checksum)
        return -EBADMSG;
    uint64_t pages = 0;
    for (uint32_t i = 0; i < footer->frames; i++) {
        if (!fl_frame_valid(&disk[i], footer->table_offset))
            return -EBADMSG;
        pack->table[i] = (struct frame_entry){.disk = disk[i], .first_page = pages};
        pages += disk[i].pages;
    }
    return pages == footer->pages ? 0 : -EBADMSG;
}

static void pack_free(struct fl_pack *pack)
{
    if (pack->fd >= 0)
        close(pack->fd);
    free(pack->table);
    free(pack);
}

static int load(struct fl_pack *pack)
{
    struct fl_disk_pack_footer footer = {.frames = 0};
    int r = fl_file_size(pack->fd, &pack->file_bytes);
    if (r == 0)
        r = check_header(pack->fd, pack->id);
    if (r == 0)
        r = read_footer(pack->fd, pack->id, pack->file_bytes, &footer);
    if (r == 0)
        r = load_table(pack, &footer);
    if (r < 0)
        return r == -EINVAL ? -EBADMSG : r;
    pack->frames = footer.frames;
    pack->pages = footer.pages;
    pack->identity_checksum = footer.identity_checksum;
    pack->identity_offset =
        footer.table_offset + (uint64_t)footer.frames * sizeof(struct fl_disk_frame);
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
    int r = load(pack);
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

// Under the lock.
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

uint32_t fl_pack_frame_pages(const struct fl_pack *pack, uint32_t frame)
{
    if (frame >= pack->frames)
        return 0;
    return pack->table ? pack->table[frame].disk.pages : raw_frame_pages(pack, frame);
}

uint32_t fl_pack_frame_stored(const struct fl_pack *pack, uint32_t frame)
{
    if (frame >= pack->frames || !pack->table)
        return 0;
    return pack->table[frame].disk.stored;
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

// A file that has become shorter than it was is an I/O error, not zeros.
static int read_raw_frame(const struct fl_pack *pack, uint32_t frame, char *buf)
{
    struct fl_frame_place place = raw_frame_place(pack, frame);
    int r = fl_pread_full(pack->fd, buf, place.stored, place.offset);
    if (r < 0)
        return r == -EBADMSG ? -EIO : r;
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
    const struct fl_disk_frame *disk = &pack->table[frame].disk;
    *ret_place =
        (struct fl_frame_place){.fd = pack->fd, .stored = disk->stored, .offset = disk->offset};
    return 0;
}

int fl_pack_unpack_frame(const struct fl_pack *pack, uint32_t frame, const void *stored, void *buf)
{
    if (frame >= pack->frames)
        return -EINVAL;
    if (pack->table)
        return fl_frame_decode(&pack->table[frame].disk, stored, buf);
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
    const struct fl_disk_frame *disk = &pack->table[frame].disk;
    void *stored = disk->codec == FL_CODEC_RAW ? buf : fl_thread_scratch(disk->stored);
    if (!stored)
        return -ENOMEM;
    int r = fl_pread_full(pack->fd, stored, disk->stored, disk->offset);
    return r < 0 ? r : fl_frame_decode(disk, stored, buf);
}

void fl_pack_salvage_frame(const struct fl_pack *pack, uint32_t frame, void *buf)
{
    if (frame >= pack->frames || !pack->table)
        return;
    const struct fl_disk_frame *disk = &pack->table[frame].disk;
    FL_AUTO_FREE void *stored = calloc(1, disk->stored);
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
    uint64_t first = pack->table[frame].first_page + slot;
    if (first > pack->pages || count > pack->pages - first)
        return -EINVAL;
    return fl_pread_full(pack->fd, ret_identities, (size_t)count * FL_IDENTITY_BYTES,
                         pack->identity_offset + first * FL_IDENTITY_BYTES);
}

int fl_pack_check_identities(const struct fl_pack *pack)
{
    enum { STEP = 1 << 20 };
    FL_AUTO_FREE char *buf = malloc(STEP);
    XXH3_state_t *state = XXH3_createState();
    int r = buf && state ? 0 : -ENOMEM;
    if (r == 0)
        XXH3_64bits_reset(state);
    uint64_t at = pack->identity_offset;
    uint64_t left = pack->pages * FL_IDENTITY_BYTES;
    while (r == 0 && left > 0) {
        size_t step = left < STEP ? (size_t)left : STEP;
        r = fl_pread_full(pack->fd, buf, step, at);
        if (r == 0)
            XXH3_64bits_update(state, buf, step);
        at += step;
        left -= step;
    }
    if (r == 0 && XXH3_64bits_digest(state) != pack->identity_checksum)
        r = -EBADMSG;
    XXH3_freeState(state);
    return r;
}
