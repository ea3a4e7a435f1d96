// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/publish.h"

struct fl_image_writer {
    struct fl_temp temp;
    uint64_t at;                     // in the file: of the next piece
    uint64_t entries;                // of the map, so far
    struct fl_disk_map_piece *piece; // of those in the file
    uint32_t pieces, room;
    bool stored; // the piece that is begun has an entry that is not zero
    uint64_t begun[FL_PIECE_ENTRIES];
};

int fl_image_writer_new(int tmp_fd, struct fl_image_writer **ret_writer)
{
    struct fl_image_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return -ENOMEM;
    writer->temp.fd = -1;
    writer->at = sizeof(struct fl_disk_image_header);
    int r = fl_temp_create(tmp_fd, ".img", &writer->temp);
    if (r < 0) {
        fl_image_writer_free(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

void fl_image_writer_free(struct fl_image_writer *writer)
{
    if (!writer)
        return;
    fl_temp_discard(&writer->temp);
    free(writer->piece);
    free(writer);
}

static int list_piece(struct fl_image_writer *writer, struct fl_disk_map_piece piece)
{
    if (writer->pieces == writer->room) {
        uint32_t room = writer->room ? 2 * writer->room : 64;
        struct fl_disk_map_piece *grown = realloc(writer->piece, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        writer->piece = grown;
        writer->room = room;
    }
    writer->piece[writer->pieces++] = piece;
    return 0;
}

// Writes the last `count` entries, which are a piece, unless they are all zero.
static int end_piece(struct fl_image_writer *writer, uint64_t count)
{
    size_t bytes = count * sizeof(writer->begun[0]);
    struct fl_disk_map_piece piece = {.number = (writer->entries - 1) / FL_PIECE_ENTRIES};
    if (!writer->stored)
        return 0;
    writer->stored = false;
    piece.checksum = fl_checksum(writer->begun, bytes);
    int r = list_piece(writer, piece);
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, writer->begun, bytes, writer->at);
    writer->at += bytes;
    return r;
}

// Returns how many entries the present piece has room for.
static uint64_t room_in(const struct fl_image_writer *writer, uint64_t count)
{
    uint64_t room = FL_PIECE_ENTRIES - writer->entries % FL_PIECE_ENTRIES;
    return count < room ? count : room;
}

static int added(struct fl_image_writer *writer, uint64_t count)
{
    writer->entries += count;
    return writer->entries % FL_PIECE_ENTRIES == 0 ? end_piece(writer, FL_PIECE_ENTRIES) : 0;
}

int fl_image_writer_append(struct fl_image_writer *writer, const uint64_t *entries, uint64_t count)
{
    int r = 0;
    while (r == 0 && count > 0) {
        uint64_t step = room_in(writer, count);
        memcpy(&writer->begun[writer->entries % FL_PIECE_ENTRIES], entries,
               step * sizeof(*entries));
        for (uint64_t i = 0; i < step && !writer->stored; i++)
            writer->stored = entries[i] != 0;
        r = added(writer, step);
        entries += step;
        count -= step;
    }
    return r;
}

int fl_image_writer_append_zero(struct fl_image_writer *writer, uint64_t count)
{
    int r = 0;
    while (r == 0 && count > 0) {
        uint64_t step = room_in(writer, count);
        memset(&writer->begun[writer->entries % FL_PIECE_ENTRIES], 0,
               step * sizeof(writer->begun[0]));
        r = added(writer, step);
        count -= step;
    }
    return r;
}

static int end_map(struct fl_image_writer *writer)
{
    uint64_t rest = writer->entries % FL_PIECE_ENTRIES;
    return rest > 0 ? end_piece(writer, rest) : 0;
}

int fl_image_writer_finish(struct fl_image_writer *writer, struct fl_disk_image_header *header,
                           const uint64_t *pack_ids, struct fl_image_tail *tail,
                           uint64_t *ret_bytes)
{
    int r = end_map(writer);
    if (r < 0)
        return r;
    size_t list_bytes = writer->pieces * sizeof(*writer->piece);
    uint64_t table_at = writer->at + list_bytes;
    size_t table_bytes = header->packs * sizeof(*pack_ids);
    memcpy(header->magic, fl_magic_image, sizeof(header->magic));
    header->version = fl_image_tail_empty(tail) ? FL_IMAGE_VERSION_PLAIN : FL_IMAGE_VERSION;
    header->pieces = writer->pieces;
    header->map_checksum = fl_checksum(writer->piece, list_bytes);
    header->pack_table_checksum = fl_checksum(pack_ids, table_bytes);
    header->checksum = fl_checksum(header, offsetof(struct fl_disk_image_header, checksum));
    r = fl_pwrite_full(writer->temp.fd, writer->piece, list_bytes, writer->at);
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, pack_ids, table_bytes, table_at);
    uint64_t end = table_at + table_bytes;
    if (r == 0 && !fl_image_tail_empty(tail))
        r = fl_image_tail_write(tail, writer->temp.fd, &end);
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, header, sizeof(*header), 0);
    if (r < 0)
        return r;
    // A hint. A pack that is flushed next takes with it what the file system notes of this file.
    sync_file_range(writer->temp.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    *ret_bytes = end;
    return 0;
}

int fl_image_writer_place(struct fl_image_writer *writer, const struct fl_disk_image_header *header,
                          int images_fd, bool replace)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    int r = fl_image_file_name(header->name, file_name);
    return r < 0 ? r : fl_temp_publish(&writer->temp, images_fd, file_name, replace);
}

int fl_image_writer_publish(struct fl_image_writer *writer, struct fl_disk_image_header *header,
                            const uint64_t *pack_ids, struct fl_image_tail *tail, int images_fd,
                            bool replace, uint64_t *ret_bytes)
{
    int r = fl_image_writer_finish(writer, header, pack_ids, tail, ret_bytes);
    return r < 0 ? r : fl_image_writer_place(writer, header, images_fd, replace);
}
