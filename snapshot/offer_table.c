// SPDX-License-Identifier: Apache-2.0
#include "snapshot/offer_table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "snapshot/about.h"
#include "snapshot/io.h"

enum { COPY_BYTES = 1 << 20, ID_DIGITS = 16, COUNTED = 256 };

void fl_offer_table_name(uint64_t id, char ret_name[FL_OFFER_TABLE_NAME_BYTES])
{
    snprintf(ret_name, FL_OFFER_TABLE_NAME_BYTES, "%016" PRIx64 FL_OFFER_TABLE_SUFFIX, id);
}

int fl_offer_table_parse_name(const char *name, uint64_t *ret_id)
{
    char right[FL_OFFER_TABLE_NAME_BYTES];
    char *end;
    errno = 0;
    uint64_t id = strtoull(name, &end, 16);
    if (errno || end != name + ID_DIGITS)
        return -EINVAL;
    fl_offer_table_name(id, right);
    if (strcmp(right, name) != 0)
        return -EINVAL;
    *ret_id = id;
    return 0;
}

static uint64_t align(uint64_t bytes)
{
    return (bytes + FL_OFFER_ALIGN - 1) / FL_OFFER_ALIGN * FL_OFFER_ALIGN;
}

static int lay_out(int fd, uint64_t id, uint64_t pages, struct fl_offer_table *ret_table)
{
    uint64_t chunks = (pages + FL_OFFER_CHUNK - 1) / FL_OFFER_CHUNK;
    uint64_t frames = chunks * (FL_OFFER_CHUNK / FL_FRAME_PAGES);
    if (pages < 1 || pages > FL_IMAGE_BYTES_MAX / FL_PAGE_SIZE || frames > UINT32_MAX)
        return -EFBIG;
    struct fl_offer_table table = {
        .fd = fd, .id = id, .pages = pages, .chunks = chunks, .frames = (uint32_t)frames};
    table.wanted_at = FL_OFFER_ALIGN;
    table.chunks_at = table.wanted_at + align(chunks);
    table.frames_at = table.chunks_at + align(chunks * sizeof(struct fl_disk_offer_chunk));
    table.entries_at = table.frames_at + align(frames * sizeof(struct fl_disk_offer_frame));
    table.companions_at = table.entries_at + align(pages * sizeof(uint64_t));
    *ret_table = table;
    return 0;
}

uint32_t fl_offer_chunk_pages(const struct fl_offer_table *table, uint64_t chunk)
{
    uint64_t left = table->pages - chunk * FL_OFFER_CHUNK;
    return left < FL_OFFER_CHUNK ? (uint32_t)left : FL_OFFER_CHUNK;
}

// --- who packs ---

int fl_offer_table_make(int fd, uint64_t id, uint64_t pages, struct fl_offer_table *ret_table)
{
    int r = lay_out(fd, id, pages, ret_table);
    if (r < 0)
        return r;
    ret_table->may_write = true;
    return ftruncate(fd, (off_t)ret_table->companions_at) < 0 ? -errno : 0;
}

int fl_offer_table_copy(const struct fl_offer_table *table, int from,
                        struct fl_disk_offer_companion *entry)
{
    FL_AUTO_FREE uint8_t *bytes = malloc(entry->bytes ? entry->bytes : 1);
    if (!bytes)
        return -ENOMEM;
    int r = fl_pread_full(from, bytes, entry->bytes, 0);
    if (r < 0)
        return r == -EBADMSG ? -ENODATA : r; // it has become shorter
    entry->checksum = fl_checksum(bytes, entry->bytes);
    return fl_pwrite_full(table->fd, bytes, entry->bytes, entry->offset);
}

int fl_offer_table_write_head(const struct fl_offer_table *table,
                              const struct fl_disk_offer_companion *list, uint32_t count)
{
    struct fl_disk_offer_table head = {.version = FL_OFFER_VERSION,
                                       .companions = count,
                                       .id = table->id,
                                       .pages = table->pages,
                                       .list_checksum = fl_checksum(list, count * sizeof(*list))};
    memcpy(head.magic, fl_magic_table, sizeof(head.magic));
    head.checksum = fl_checksum(&head, offsetof(struct fl_disk_offer_table, checksum));
    int r = fl_pwrite_full(table->fd, list, count * sizeof(*list), table->companions_at);
    return r < 0 ? r : fl_pwrite_full(table->fd, &head, sizeof(head), 0);
}

int fl_offer_table_put_frames(const struct fl_offer_table *table, uint32_t first,
                              const struct fl_disk_frame *frames, uint32_t count)
{
    struct fl_disk_offer_frame put[FL_OFFER_CHUNK / FL_FRAME_PAGES];
    if (count > FL_OFFER_CHUNK / FL_FRAME_PAGES || first > table->frames ||
        count > table->frames - first)
        return -EOVERFLOW;
    for (uint32_t i = 0; i < count; i++)
        put[i] = (struct fl_disk_offer_frame){
            .frame = frames[i], .checksum = fl_checksum(&frames[i], sizeof(frames[i]))};
    return fl_pwrite_full(table->fd, put, count * sizeof(put[0]),
                          table->frames_at + first * sizeof(put[0]));
}

int fl_offer_table_put_chunk(const struct fl_offer_table *table, uint64_t chunk,
                             const uint64_t *entries)
{
    size_t bytes = fl_offer_chunk_pages(table, chunk) * sizeof(*entries);
    struct fl_disk_offer_chunk put = {.packed = 1, .checksum = fl_checksum(entries, bytes)};
    bool zero = true;
    for (size_t i = 0; zero && i < bytes / sizeof(*entries); i++)
        zero = entries[i] == 0;
    int r = zero ? 0 // they are, in the file
                 : fl_pwrite_full(table->fd, entries, bytes,
                                  table->entries_at + chunk * FL_OFFER_CHUNK * sizeof(*entries));
    return r < 0 ? r
                 : fl_pwrite_full(table->fd, &put, sizeof(put),
                                  table->chunks_at + chunk * sizeof(put));
}

int fl_offer_table_publish(const struct fl_offer_table *table, const struct fl_identity *content_id)
{
    struct fl_disk_offer_state state = {.content_id = *content_id, .published = 1};
    state.checksum = fl_checksum(&state, offsetof(struct fl_disk_offer_state, checksum));
    return fl_pwrite_full(table->fd, &state, sizeof(state), FL_OFFER_STATE_AT);
}

int fl_offer_table_read_wanted(const struct fl_offer_table *table, uint8_t *ret_wanted)
{
    return fl_pread_full(table->fd, ret_wanted, table->chunks, table->wanted_at);
}

// --- who reads ---

int fl_offer_table_open(int fd, uint64_t id, uint64_t pages, bool may_write,
                        struct fl_offer_table *ret_table)
{
    struct fl_disk_offer_table head;
    uint64_t bytes;
    int r = fl_read_header(fd, fl_magic_table, FL_OFFER_VERSION, &head, sizeof(head), &bytes);
    if (r == 0)
        r = lay_out(fd, id, pages, ret_table);
    if (r < 0)
        return r;
    ret_table->may_write = may_write;
    return head.id == id && head.pages == pages && head.companions <= FL_COMPANIONS_MAX &&
                   bytes >= ret_table->companions_at
               ? 0
               : -EBADMSG;
}

bool fl_offer_table_alive(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) < 0) // also if that cannot be known just now
        return true;
    flock(fd, LOCK_UN);
    return false;
}

// 0: it is packed, and these are its entries' bytes; -EINPROGRESS.
static int try_chunk(const struct fl_offer_table *table, uint64_t chunk, uint64_t *ret_entries)
{
    struct fl_disk_offer_chunk found;
    size_t bytes = fl_offer_chunk_pages(table, chunk) * sizeof(*ret_entries);
    int r =
        fl_pread_full(table->fd, &found, sizeof(found), table->chunks_at + chunk * sizeof(found));
    if (r < 0 || found.packed == 0)
        return r < 0 ? r : -EINPROGRESS;
    r = fl_pread_full(table->fd, ret_entries, bytes,
                      table->entries_at + chunk * FL_OFFER_CHUNK * sizeof(*ret_entries));
    if (r == 0 && fl_checksum(ret_entries, bytes) != found.checksum)
        r = -EBADMSG;
    return r;
}

int fl_offer_table_read_chunk(const struct fl_offer_table *table, uint64_t chunk,
                              uint64_t *ret_entries)
{
    static const uint8_t one = 1;
    uint8_t wanted = 1;
    int r = try_chunk(table, chunk, ret_entries);
    if (r != -EINPROGRESS)
        return r;
    if (table->may_write)
        r = fl_pread_full(table->fd, &wanted, 1, table->wanted_at + chunk);
    if (!wanted) // without it the chunk comes in its turn
        r = fl_pwrite_full(table->fd, &one, 1, table->wanted_at + chunk);
    if (fl_offer_table_alive(table->fd))
        return -EINPROGRESS;
    // It may have been packed last of all.
    r = try_chunk(table, chunk, ret_entries);
    return r == -EINPROGRESS ? -EOWNERDEAD : r;
}

int fl_offer_table_read_frame(const struct fl_offer_table *table, uint32_t frame,
                              struct fl_disk_frame *ret_frame)
{
    struct fl_disk_offer_frame found;
    int r = frame < table->frames ? fl_pread_full(table->fd, &found, sizeof(found),
                                                  table->frames_at + frame * sizeof(found))
                                  : -EBADMSG;
    if (r == 0 && fl_checksum(&found.frame, sizeof(found.frame)) != found.checksum)
        r = -EBADMSG;
    if (r == 0)
        *ret_frame = found.frame;
    return r;
}

int fl_offer_table_published(const struct fl_offer_table *table, struct fl_identity *ret_id)
{
    struct fl_disk_offer_state state;
    int r = fl_pread_full(table->fd, &state, sizeof(state), FL_OFFER_STATE_AT);
    if (r < 0 || state.published == 0)
        return r < 0 ? r : -EINPROGRESS;
    if (state.checksum != fl_checksum(&state, offsetof(struct fl_disk_offer_state, checksum)))
        return -EBADMSG;
    *ret_id = state.content_id;
    return 0;
}

uint64_t fl_offer_table_packed(const struct fl_offer_table *table)
{
    uint64_t pages = 0;
    struct fl_disk_offer_chunk some[COUNTED];
    for (uint64_t first = 0; first < table->chunks; first += COUNTED) {
        uint64_t count = table->chunks - first < COUNTED ? table->chunks - first : COUNTED;
        if (fl_pread_full(table->fd, some, count * sizeof(*some),
                          table->chunks_at + first * sizeof(*some)) < 0)
            break;
        for (uint64_t i = 0; i < count; i++)
            pages += some[i].packed ? fl_offer_chunk_pages(table, first + i) : 0;
    }
    return pages;
}

static bool list_valid(const struct fl_offer_table *table,
                       const struct fl_disk_offer_companion *list, uint32_t count,
                       uint64_t file_bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!memchr(list[i].name, '\0', sizeof(list[i].name)) || !fl_name_valid(list[i].name) ||
            list[i].bytes > FL_COMPANION_BYTES_MAX || list[i].offset < table->companions_at ||
            list[i].offset > file_bytes || list[i].bytes > file_bytes - list[i].offset)
            return false;
    }
    return true;
}

int fl_offer_table_companions(const struct fl_offer_table *table,
                              struct fl_disk_offer_companion **ret_list, uint32_t *ret_count)
{
    struct fl_disk_offer_table head;
    uint64_t file_bytes;
    int r = fl_read_header(table->fd, fl_magic_table, FL_OFFER_VERSION, &head, sizeof(head),
                           &file_bytes);
    if (r == 0 && head.companions > FL_COMPANIONS_MAX)
        r = -EBADMSG;
    if (r < 0)
        return r;
    size_t bytes = head.companions * sizeof(**ret_list);
    struct fl_disk_offer_companion *list = malloc(bytes ? bytes : 1);
    r = list ? fl_pread_full(table->fd, list, bytes, table->companions_at) : -ENOMEM;
    if (r == 0 && (fl_checksum(list, bytes) != head.list_checksum ||
                   !list_valid(table, list, head.companions, file_bytes)))
        r = -EBADMSG;
    if (r < 0) {
        free(list);
        return r;
    }
    *ret_list = list;
    *ret_count = head.companions;
    return 0;
}
