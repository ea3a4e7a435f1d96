// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/snapshot_sign.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/format.h"
#include "snapshot/io.h"

static bool inside(size_t used, uint64_t offset, uint64_t count, uint64_t size)
{
    return offset <= used && count <= (used - offset) / size;
}

static void seal_image(uint8_t *bytes, struct fl_disk_image_header *header)
{
    header->checksum = fl_checksum(header, offsetof(struct fl_disk_image_header, checksum));
    memcpy(bytes, header, sizeof(*header));
}

// Pieces as they follow each other if all but the last are long.
static void sign_pieces(uint8_t *bytes, const struct fl_disk_image_header *header, uint64_t list)
{
    uint64_t at = sizeof(*header);
    for (uint32_t i = 0; i < header->pieces; i++) {
        struct fl_disk_map_piece piece;
        uint8_t *where = bytes + list + i * sizeof(piece);
        uint64_t length = FL_PIECE_ENTRIES * sizeof(uint64_t);
        memcpy(&piece, where, sizeof(piece));
        if (at > list)
            return;
        length = length < list - at ? length : list - at;
        piece.checksum = fl_checksum(bytes + at, length);
        memcpy(where, &piece, sizeof(piece));
        at += length;
    }
}

// Of version 3: what stands behind the pack table. Returns its bytes.
static size_t sign_tail(uint8_t *bytes, size_t used)
{
    struct fl_disk_image_footer footer;
    if (used < sizeof(struct fl_disk_image_header) + sizeof(footer))
        return 0;
    uint8_t *where = bytes + used - sizeof(footer);
    memcpy(&footer, where, sizeof(footer));
    uint64_t about =
        (uint64_t)footer.companions * sizeof(struct fl_disk_companion) + footer.label_bytes;
    bool there = about <= used - sizeof(struct fl_disk_image_header) - sizeof(footer);
    if (there)
        footer.about_checksum = fl_checksum(where - about, about);
    footer.checksum = fl_checksum(&footer, offsetof(struct fl_disk_image_footer, checksum));
    memcpy(where, &footer, sizeof(footer));
    return there ? about + sizeof(footer) : 0;
}

void sign_image(uint8_t *bytes, size_t used)
{
    struct fl_disk_image_header header;
    if (!inside(used, 0, 1, sizeof(header)))
        return;
    memcpy(&header, bytes, sizeof(header));
    if (header.version == FL_IMAGE_VERSION)
        used -= sign_tail(bytes, used);
    uint64_t packs = (uint64_t)header.packs * 8;
    uint64_t list = header.version == 1 ? header.pages : header.pieces;
    uint64_t size = header.version == 1 ? 8 : sizeof(struct fl_disk_map_piece);
    if (inside(used, sizeof(header), 1, packs ? packs : 1) &&
        inside(used - packs, sizeof(header), list, size)) {
        uint64_t at = used - packs - list * size;
        if (header.version != 1)
            sign_pieces(bytes, &header, at);
        header.map_checksum = fl_checksum(bytes + at, list * size);
        header.pack_table_checksum = fl_checksum(bytes + used - packs, packs);
    }
    seal_image(bytes, &header);
}

static void sign_frames(uint8_t *bytes, size_t used, const struct fl_disk_pack_footer *footer)
{
    for (uint32_t i = 0; i < footer->frames; i++) {
        struct fl_disk_frame frame;
        uint8_t *at = bytes + footer->table_offset + i * sizeof(frame);
        memcpy(&frame, at, sizeof(frame));
        if (inside(used, frame.offset, frame.stored, 1))
            frame.checksum = fl_checksum(bytes + frame.offset, frame.stored);
        memcpy(at, &frame, sizeof(frame));
    }
}

static void sign_table(uint8_t *bytes, const struct fl_disk_pack_footer *footer, uint64_t list,
                       uint32_t pieces)
{
    for (uint32_t i = 0; i < pieces; i++) {
        struct fl_disk_frame_piece piece;
        uint8_t *where = bytes + list + i * sizeof(piece);
        uint32_t left = footer->frames - i * FL_PIECE_FRAMES;
        memcpy(&piece, where, sizeof(piece));
        piece.checksum = fl_checksum(
            bytes + footer->table_offset + i * FL_PIECE_FRAMES * sizeof(struct fl_disk_frame),
            (left < FL_PIECE_FRAMES ? left : FL_PIECE_FRAMES) * sizeof(struct fl_disk_frame));
        memcpy(where, &piece, sizeof(piece));
    }
}

void sign_pack(uint8_t *bytes, size_t used)
{
    struct fl_disk_pack_header header;
    struct fl_disk_pack_footer footer;
    if (!inside(used, 0, 1, sizeof(header) + sizeof(footer)))
        return;
    uint8_t *end = bytes + used - sizeof(footer);
    memcpy(&header, bytes, sizeof(header));
    header.checksum = fl_checksum(&header, offsetof(struct fl_disk_pack_header, checksum));
    memcpy(bytes, &header, sizeof(header));
    memcpy(&footer, end, sizeof(footer));
    if (inside(used, footer.table_offset, footer.frames, sizeof(struct fl_disk_frame))) {
        uint64_t table = (uint64_t)footer.frames * sizeof(struct fl_disk_frame);
        uint64_t identities = footer.table_offset + table;
        sign_frames(bytes, used, &footer);
        memcpy(&footer, end, sizeof(footer)); // a table may lie anywhere
        footer.table_checksum = fl_checksum(bytes + footer.table_offset, table);
        if (inside(used, identities, footer.pages, FL_IDENTITY_BYTES)) {
            uint64_t list = identities + footer.pages * FL_IDENTITY_BYTES;
            uint32_t pieces =
                (uint32_t)(((uint64_t)footer.frames + FL_PIECE_FRAMES - 1) / FL_PIECE_FRAMES);
            size_t size = sizeof(struct fl_disk_frame_piece);
            footer.identity_checksum =
                fl_checksum(bytes + identities, footer.pages * FL_IDENTITY_BYTES);
            if (footer.version != 1 && inside(used - sizeof(footer), list, pieces, size)) {
                sign_table(bytes, &footer, list, pieces);
                footer.table_checksum = fl_checksum(bytes + list, pieces * size);
            }
        }
    }
    footer.checksum = fl_checksum(&footer, offsetof(struct fl_disk_pack_footer, checksum));
    memcpy(end, &footer, sizeof(footer));
}

// --- version 1 ---

uint8_t *image_version_1(const uint8_t *bytes, size_t used, size_t *ret_used)
{
    struct fl_disk_image_header header;
    memcpy(&header, bytes, sizeof(header));
    size_t packs = header.packs * sizeof(uint64_t);
    size_t map = header.pages * sizeof(uint64_t);
    const uint8_t *list = bytes + used - packs - header.pieces * sizeof(struct fl_disk_map_piece);
    uint8_t *old = calloc(1, sizeof(header) + map + packs);
    const uint8_t *from = bytes + sizeof(header);
    for (uint32_t i = 0; old && i < header.pieces; i++) {
        struct fl_disk_map_piece piece;
        memcpy(&piece, list + i * sizeof(piece), sizeof(piece));
        size_t at = piece.number * FL_PIECE_ENTRIES * sizeof(uint64_t);
        size_t length = FL_PIECE_ENTRIES * sizeof(uint64_t);
        length = length < map - at ? length : map - at;
        memcpy(old + sizeof(header) + at, from, length);
        from += length;
    }
    *ret_used = sizeof(header) + map + packs;
    if (!old)
        return NULL;
    memcpy(old + sizeof(header) + map, bytes + used - packs, packs);
    header.version = 1;
    header.pieces = 0;
    memcpy(old, &header, sizeof(header));
    sign_image(old, *ret_used);
    return old;
}

uint8_t *pack_version_1(const uint8_t *bytes, size_t used, size_t *ret_used)
{
    struct fl_disk_pack_footer footer;
    uint32_t version = 1;
    memcpy(&footer, bytes + used - sizeof(footer), sizeof(footer));
    size_t tables = footer.table_offset + footer.frames * sizeof(struct fl_disk_frame) +
                    footer.pages * FL_IDENTITY_BYTES;
    uint8_t *old = malloc(tables + sizeof(footer));
    *ret_used = tables + sizeof(footer);
    if (!old)
        return NULL;
    memcpy(old, bytes, tables);
    memcpy(old + offsetof(struct fl_disk_pack_header, version), &version, sizeof(version));
    footer.version = version;
    memcpy(old + tables, &footer, sizeof(footer));
    sign_pack(old, *ret_used);
    return old;
}
