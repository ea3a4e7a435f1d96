// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/frame.h"
#include "snapshot/io.h"
#include "snapshot/pack_file.h"
#include "snapshot/pack_name.h"
#include "snapshot/publish.h"
#include "snapshot/stream.h"

// After so many bytes the kernel is asked to begin writing them out, so that the flush at the end
// finds little to do.
#define WRITEBACK_STEP (UINT64_C(8) << 20)

struct fl_pack_writer {
    uint64_t id;
    uint32_t version;
    struct fl_temp temp;
    uint64_t offset;    // of the next frame
    uint64_t writeback; // the kernel was asked to write out all bytes before this one
    uint32_t frames;
    uint64_t pages;
    // Both tables come after the frames: until then they are kept in files without a name.
    int table_fd, identity_fd;
    struct fl_stream *table;
    struct fl_stream *identities;
    struct fl_disk_frame_piece *piece; // of the table; the last one is begun
    uint32_t pieces, pieces_room;
    struct fl_disk_frame begun[FL_PIECE_FRAMES]; // the entries of the last piece so far
};

static int begin_tables(struct fl_pack_writer *writer, int tmp_fd)
{
    int r = fl_scratch_create(tmp_fd, &writer->table_fd);
    if (r == 0)
        r = fl_scratch_create(tmp_fd, &writer->identity_fd);
    if (r == 0)
        r = fl_stream_new(writer->table_fd, 0, &writer->table);
    if (r == 0)
        r = fl_stream_new(writer->identity_fd, 0, &writer->identities);
    return r;
}

static int write_header(struct fl_pack_writer *writer)
{
    struct fl_disk_pack_header header = {.version = writer->version, .pack_id = writer->id};
    memcpy(header.magic, fl_magic_pack, sizeof(header.magic));
    header.checksum = fl_checksum(&header, offsetof(struct fl_disk_pack_header, checksum));
    return fl_pwrite_full(writer->temp.fd, &header, sizeof(header), 0);
}

int fl_pack_writer_new(int tmp_fd, struct fl_pack_writer **ret_writer)
{
    struct fl_pack_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return -ENOMEM;
    writer->temp.fd = writer->table_fd = writer->identity_fd = -1;
    writer->version = FL_PACK_VERSION_PLAIN;
    writer->offset = sizeof(struct fl_disk_pack_header);
    int r = fl_random_id(&writer->id);
    if (r == 0)
        r = fl_temp_create(tmp_fd, ".pack", &writer->temp);
    if (r == 0)
        r = begin_tables(writer, tmp_fd);
    if (r == 0)
        r = write_header(writer);
    if (r < 0) {
        fl_pack_writer_free(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

void fl_pack_writer_free(struct fl_pack_writer *writer)
{
    if (!writer)
        return;
    fl_temp_discard(&writer->temp);
    fl_stream_free(writer->table);
    fl_stream_free(writer->identities);
    fl_cleanup_close(&writer->table_fd);
    fl_cleanup_close(&writer->identity_fd);
    free(writer->piece);
    free(writer);
}

uint64_t fl_pack_writer_id(const struct fl_pack_writer *writer)
{
    return writer->id;
}

uint32_t fl_pack_writer_frames(const struct fl_pack_writer *writer)
{
    return writer->frames;
}

const char *fl_pack_writer_file(const struct fl_pack_writer *writer)
{
    return writer->temp.name;
}

void fl_pack_writer_leave(struct fl_pack_writer *writer)
{
    writer->temp.name[0] = '\0';
}

static void begin_writeback(struct fl_pack_writer *writer)
{
    if (writer->offset - writer->writeback < WRITEBACK_STEP)
        return;
    // This is a hint: where it does not work the flush at the end writes everything.
    sync_file_range(writer->temp.fd, (off_t)writer->writeback,
                    (off_t)(writer->offset - writer->writeback), SYNC_FILE_RANGE_WRITE);
    writer->writeback = writer->offset;
}

static int begin_piece(struct fl_pack_writer *writer, uint64_t first_page)
{
    if (writer->pieces == writer->pieces_room) {
        uint32_t room = writer->pieces_room ? 2 * writer->pieces_room : 16;
        struct fl_disk_frame_piece *grown = realloc(writer->piece, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        writer->piece = grown;
        writer->pieces_room = room;
    }
    writer->piece[writer->pieces++] = (struct fl_disk_frame_piece){.first_page = first_page};
    return 0;
}

// The checksum is that of a piece which is complete, or of what there is of it.
static int add_to_pieces(struct fl_pack_writer *writer, const struct fl_disk_frame *frames,
                         uint32_t count)
{
    uint64_t page = writer->pages;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (writer->frames + i) % FL_PIECE_FRAMES;
        int r = at == 0 ? begin_piece(writer, page) : 0;
        if (r < 0)
            return r;
        writer->begun[at] = frames[i];
        if (at == FL_PIECE_FRAMES - 1)
            writer->piece[writer->pieces - 1].checksum =
                fl_checksum(writer->begun, sizeof(writer->begun));
        page += frames[i].pages;
    }
    return 0;
}

static void end_pieces(struct fl_pack_writer *writer)
{
    uint32_t rest = writer->frames % FL_PIECE_FRAMES;
    if (rest > 0)
        writer->piece[writer->pieces - 1].checksum =
            fl_checksum(writer->begun, rest * sizeof(writer->begun[0]));
}

// A program that does not know zstd refuses the pack before it meets such a frame.
static int want_version(struct fl_pack_writer *writer, const struct fl_disk_frame *frames,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count && writer->version < FL_PACK_VERSION; i++) {
        if (frames[i].codec == FL_CODEC_ZSTD) {
            writer->version = FL_PACK_VERSION;
            return write_header(writer);
        }
    }
    return 0;
}

int fl_pack_writer_append(struct fl_pack_writer *writer, struct fl_disk_frame *frames,
                          uint32_t count, const void *bytes, size_t len,
                          const struct fl_identity *identities)
{
    uint32_t pages = 0;
    uint64_t offset = writer->offset;
    for (uint32_t i = 0; i < count; i++) {
        frames[i].offset = offset;
        offset += frames[i].stored;
        pages += frames[i].pages;
    }
    int r = want_version(writer, frames, count);
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, bytes, len, writer->offset);
    if (r == 0)
        r = fl_stream_append(writer->table, frames, count * sizeof(*frames));
    if (r == 0)
        r = fl_stream_append(writer->identities, identities, pages * sizeof(*identities));
    if (r == 0)
        r = add_to_pieces(writer, frames, count);
    if (r < 0)
        return r;
    writer->offset = offset;
    writer->frames += count;
    writer->pages += pages;
    begin_writeback(writer);
    return 0;
}

static int write_tables(struct fl_pack_writer *writer, uint64_t *ret_bytes)
{
    size_t piece_bytes = writer->pieces * sizeof(*writer->piece);
    end_pieces(writer);
    struct fl_disk_pack_footer footer = {
        .version = writer->version,
        .frames = writer->frames,
        .pack_id = writer->id,
        .pages = writer->pages,
        .table_offset = writer->offset,
        .table_checksum = fl_checksum(writer->piece, piece_bytes),
        .identity_checksum = fl_stream_checksum(writer->identities),
    };
    memcpy(footer.magic, fl_magic_footer, sizeof(footer.magic));
    footer.checksum = fl_checksum(&footer, offsetof(struct fl_disk_pack_footer, checksum));
    uint64_t at = writer->offset;
    int r = fl_stream_copy(writer->table, writer->temp.fd, at);
    at += fl_stream_bytes(writer->table);
    if (r == 0)
        r = fl_stream_copy(writer->identities, writer->temp.fd, at);
    at += fl_stream_bytes(writer->identities);
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, writer->piece, piece_bytes, at);
    at += piece_bytes;
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, &footer, sizeof(footer), at);
    if (r == 0)
        *ret_bytes = at + sizeof(footer);
    return r;
}

int fl_pack_writer_publish(struct fl_pack_writer *writer, int packs_fd, uint64_t *ret_bytes)
{
    char name[FL_PACK_NAME_BYTES];
    uint64_t bytes = 0;
    int r = write_tables(writer, &bytes);
    if (r < 0)
        return r;
    fl_pack_name(writer->id, name);
    r = fl_temp_publish(&writer->temp, packs_fd, name, false);
    if (r == 0)
        *ret_bytes = bytes;
    return r;
}
