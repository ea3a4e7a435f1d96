// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "snapshot/frame.h"
#include "snapshot/io.h"

static bool version_known(uint32_t version)
{
    return version >= 1 && version <= FL_PACK_VERSION;
}

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
    if (!version_known(header.version))
        return -EPROTONOSUPPORT;
    return header.pack_id == id ? 0 : -EBADMSG;
}

static uint32_t count_pieces(const struct fl_disk_pack_footer *footer)
{
    if (footer->version == 1 || footer->frames == 0)
        return 0;
    return (footer->frames - 1) / FL_PIECE_FRAMES + 1;
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
    if (!version_known(footer.version))
        return -EPROTONOSUPPORT;
    // The product cannot wrap: pages is bounded by the file first.
    uint64_t tables = (uint64_t)footer.frames * sizeof(struct fl_disk_frame) +
                      (uint64_t)count_pieces(&footer) * sizeof(struct fl_disk_frame_piece);
    if (footer.pack_id != id || footer.frames == 0 ||
        footer.pages > file_bytes / FL_IDENTITY_BYTES ||
        tables + footer.pages * FL_IDENTITY_BYTES > file_bytes - fixed ||
        footer.table_offset !=
            file_bytes - sizeof(footer) - footer.pages * FL_IDENTITY_BYTES - tables)
        return -EBADMSG;
    *ret_footer = footer;
    return 0;
}

// --- pieces ---

static uint32_t piece_frames(const struct fl_pack_table *table, uint64_t piece)
{
    uint64_t left = table->frames - piece * FL_PIECE_FRAMES;
    return left < FL_PIECE_FRAMES ? (uint32_t)left : FL_PIECE_FRAMES;
}

// Verifies every field of `count` entries. *page is the number of their first page, and on return
// of the page after their last.
static int to_entries(const struct fl_pack_table *table, const struct fl_disk_frame *disk,
                      uint32_t count, struct fl_frame_entry *ret_entries, uint64_t *page)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!fl_frame_valid(&disk[i], table->offset) ||
            (disk[i].codec == FL_CODEC_ZSTD && table->version < FL_PACK_VERSION))
            return -EBADMSG;
        ret_entries[i] = (struct fl_frame_entry){.disk = disk[i], .first_page = *page};
        *page += disk[i].pages;
    }
    return 0;
}

static uint64_t page_after(const struct fl_pack_table *table, uint64_t piece)
{
    return piece + 1 < table->entries.pieces ? table->piece[piece + 1].first_page : table->pages;
}

static int read_piece(const struct fl_pack_table *table, uint64_t piece)
{
    uint32_t count = piece_frames(table, piece);
    size_t bytes = count * sizeof(struct fl_disk_frame);
    uint64_t page = table->piece[piece].first_page;
    FL_AUTO_FREE struct fl_disk_frame *disk = malloc(bytes);
    FL_AUTO_FREE struct fl_frame_entry *entries = malloc(count * sizeof(*entries));
    if (!disk || !entries)
        return -ENOMEM;
    int r = fl_pread_full(table->fd, disk, bytes,
                          table->offset + piece * FL_PIECE_FRAMES * sizeof(*disk));
    if (r == 0 && fl_checksum(disk, bytes) != table->piece[piece].checksum)
        r = -EBADMSG;
    if (r == 0)
        r = to_entries(table, disk, count, entries, &page);
    if (r == 0 && page != page_after(table, piece))
        r = -EBADMSG;
    if (r == 0)
        fl_lazy_put(&table->entries, piece, entries);
    return r;
}

static int read_list(struct fl_pack_table *table, uint64_t checksum)
{
    uint64_t pieces = table->entries.pieces;
    size_t bytes = pieces * sizeof(*table->piece);
    table->piece = malloc(bytes);
    if (!table->piece)
        return -ENOMEM;
    int r = fl_pread_full(table->fd, table->piece, bytes,
                          table->identity_offset + table->pages * FL_IDENTITY_BYTES);
    if (r < 0)
        return r;
    if (fl_checksum(table->piece, bytes) != checksum || table->piece[0].first_page != 0)
        return -EBADMSG;
    for (uint64_t i = 0; i < pieces; i++) {
        if (table->piece[i].first_page >= page_after(table, i))
            return -EBADMSG;
    }
    return 0;
}

// --- a pack that is being written ---

static int read_offered(const struct fl_pack_table *table, uint32_t frame)
{
    struct fl_frame_entry entry = {.first_page = 0};
    int r = fl_offer_table_read_frame(table->offer, frame, &entry.disk);
    if (r == 0 && !fl_frame_valid(&entry.disk, INT64_MAX))
        r = -EBADMSG;
    if (r == 0)
        fl_lazy_put(&table->entries, frame, &entry);
    return r;
}

int fl_pack_table_open_offered(int fd, uint64_t id, const struct fl_offer_table *offer,
                               struct fl_pack_table **ret_table)
{
    int r = check_header(fd, id);
    if (r < 0)
        return r;
    struct fl_pack_table *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    *table = (struct fl_pack_table){.fd = fd, .frames = offer->frames, .offer = offer};
    r = fl_lazy_init(&table->entries, table->frames * sizeof(struct fl_frame_entry),
                     sizeof(struct fl_frame_entry), FL_PIECE_UNREAD);
    if (r < 0)
        fl_pack_table_close(table);
    else
        *ret_table = table;
    return r;
}

// --- version 1 ---

static int read_whole(struct fl_pack_table *table, uint64_t checksum)
{
    size_t bytes = table->frames * sizeof(struct fl_disk_frame);
    FL_AUTO_FREE struct fl_disk_frame *disk = malloc(bytes);
    FL_AUTO_FREE struct fl_frame_entry *entries = malloc(FL_PIECE_FRAMES * sizeof(*entries));
    uint64_t page = 0;
    if (!disk || !entries)
        return -ENOMEM;
    int r = fl_pread_full(table->fd, disk, bytes, table->offset);
    if (r == 0 && fl_checksum(disk, bytes) != checksum)
        r = -EBADMSG;
    for (uint64_t i = 0; r == 0 && i < table->entries.pieces; i++) {
        r = to_entries(table, disk + i * FL_PIECE_FRAMES, piece_frames(table, i), entries, &page);
        if (r == 0)
            fl_lazy_put(&table->entries, i, entries);
    }
    return r == 0 && page != table->pages ? -EBADMSG : r;
}

// --- all of it ---

static int open_table(struct fl_pack_table *table, const struct fl_disk_pack_footer *footer)
{
    table->version = footer->version;
    table->frames = footer->frames;
    table->pages = footer->pages;
    table->offset = footer->table_offset;
    table->identity_offset =
        footer->table_offset + (uint64_t)footer->frames * sizeof(struct fl_disk_frame);
    table->identity_checksum = footer->identity_checksum;
    int r = fl_lazy_init(&table->entries, footer->frames * sizeof(struct fl_frame_entry),
                         FL_PIECE_FRAMES * sizeof(struct fl_frame_entry), FL_PIECE_UNREAD);
    if (r < 0)
        return r;
    return footer->version == 1 ? read_whole(table, footer->table_checksum)
                                : read_list(table, footer->table_checksum);
}

int fl_pack_table_open(int fd, uint64_t id, uint64_t file_bytes, struct fl_pack_table **ret_table)
{
    struct fl_disk_pack_footer footer = {.frames = 0};
    int r = check_header(fd, id);
    if (r == 0)
        r = read_footer(fd, id, file_bytes, &footer);
    if (r < 0)
        return r;
    struct fl_pack_table *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    table->fd = fd;
    r = open_table(table, &footer);
    if (r < 0)
        fl_pack_table_close(table);
    else
        *ret_table = table;
    return r;
}

void fl_pack_table_close(struct fl_pack_table *table)
{
    if (!table)
        return;
    fl_lazy_fini(&table->entries);
    free(table->piece);
    free(table);
}

const struct fl_frame_entry *fl_pack_table_find(const struct fl_pack_table *table, uint32_t frame,
                                                int *ret_error)
{
    uint64_t piece = table->offer ? frame : frame / FL_PIECE_FRAMES;
    int r = 0;
    if (frame < table->frames && fl_lazy_state(&table->entries, piece) == FL_PIECE_UNREAD)
        r = table->offer ? read_offered(table, frame) : read_piece(table, piece);
    if (ret_error)
        *ret_error = r;
    return r < 0 || frame >= table->frames
               ? NULL
               : (const struct fl_frame_entry *)table->entries.memory + frame;
}

int fl_pack_table_check_identities(const struct fl_pack_table *table)
{
    enum { STEP = 1 << 20 };
    FL_AUTO_FREE char *buf = malloc(STEP);
    XXH3_state_t *state = XXH3_createState();
    int r = buf && state ? 0 : -ENOMEM;
    if (r == 0)
        XXH3_64bits_reset(state);
    uint64_t at = table->identity_offset;
    uint64_t left = table->pages * FL_IDENTITY_BYTES;
    while (r == 0 && left > 0) {
        size_t step = left < STEP ? (size_t)left : STEP;
        r = fl_pread_full(table->fd, buf, step, at);
        if (r == 0)
            XXH3_64bits_update(state, buf, step);
        at += step;
        left -= step;
    }
    if (r == 0 && XXH3_64bits_digest(state) != table->identity_checksum)
        r = -EBADMSG;
    XXH3_freeState(state);
    return r;
}
