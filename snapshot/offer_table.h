// SPDX-License-Identifier: Apache-2.0
//
// The table of an image on offer: what is packed of it so far, and which chunks somebody waits for.
// One process packs, and writes it; any number read it. Both use pread() and pwrite() alone: a file
// that is cut short or a full disk is an error, and no signal, and a reader that is told of a chunk
// finds what was written before. Any thread, unless it says otherwise.
#ifndef FAULTLINE_SNAPSHOT_OFFER_TABLE_H
#define FAULTLINE_SNAPSHOT_OFFER_TABLE_H

#include <stdbool.h>

#include "snapshot/format.h"

#define FL_OFFER_TABLE_NAME_BYTES (16 + sizeof(FL_OFFER_TABLE_SUFFIX))

// Where the sections are; constant.
struct fl_offer_table {
    int fd;         // the owner closes it
    bool may_write; // a reader that may not cannot say what it waits for
    uint64_t id;
    uint64_t pages;
    uint64_t chunks;
    uint32_t frames; // of the pack that is being written: more there cannot be
    uint64_t wanted_at, chunks_at, frames_at, entries_at, companions_at;
};

void fl_offer_table_name(uint64_t id, char ret_name[FL_OFFER_TABLE_NAME_BYTES]);
// -EINVAL: it is not the name of a table.
int fl_offer_table_parse_name(const char *name, uint64_t *ret_id);
// The pages of a chunk.
uint32_t fl_offer_chunk_pages(const struct fl_offer_table *table, uint64_t chunk);

// --- who packs ---

// Makes the sections of a new file, with the header. `list` has the companions' names and sizes;
// their offsets are filled in, and `bytes` must be put there before the list is written.
int fl_offer_table_make(int fd, uint64_t id, uint64_t pages, struct fl_offer_table *ret_table);
// Takes the file `from` in as the companion `entry` (of `bytes` bytes) at its offset.
int fl_offer_table_copy(const struct fl_offer_table *table, int from,
                        struct fl_disk_offer_companion *entry);
int fl_offer_table_write_head(const struct fl_offer_table *table,
                              const struct fl_disk_offer_companion *list, uint32_t count);
// Frames of the pack that is being written, from number `first` on. Their bytes are in the pack.
int fl_offer_table_put_frames(const struct fl_offer_table *table, uint32_t first,
                              const struct fl_disk_frame *frames, uint32_t count);
// The chunk's entries. The frames that they refer to were put before.
int fl_offer_table_put_chunk(const struct fl_offer_table *table, uint64_t chunk,
                             const uint64_t *entries);
int fl_offer_table_publish(const struct fl_offer_table *table,
                           const struct fl_identity *content_id);
// One byte a chunk: not zero if somebody waits for it.
int fl_offer_table_read_wanted(const struct fl_offer_table *table, uint8_t *ret_wanted);

// --- who reads ---

// Opens it. -EBADMSG, -EPROTONOSUPPORT: it is not the table of this number and size.
int fl_offer_table_open(int fd, uint64_t id, uint64_t pages, bool may_write,
                        struct fl_offer_table *ret_table);
// Reads the entries of a chunk. -EINPROGRESS: it is not packed yet, and is wanted from now on;
// -EOWNERDEAD: it never will be, as the process that packed has ended; -EBADMSG.
int fl_offer_table_read_chunk(const struct fl_offer_table *table, uint64_t chunk,
                              uint64_t *ret_entries);
// -EBADMSG: there is none, or it is damaged.
int fl_offer_table_read_frame(const struct fl_offer_table *table, uint32_t frame,
                              struct fl_disk_frame *ret_frame);
// 0: the image is published, with this content; -EINPROGRESS: it is not; -EBADMSG.
int fl_offer_table_published(const struct fl_offer_table *table, struct fl_identity *ret_id);
// How many pages are packed so far; of a table that is cut short those before its end.
uint64_t fl_offer_table_packed(const struct fl_offer_table *table);
// Whether a process still packs. That of an open file, also if it was removed.
bool fl_offer_table_alive(int fd);
// *ret_list is to be freed. -EBADMSG, -ENOMEM.
int fl_offer_table_companions(const struct fl_offer_table *table,
                              struct fl_disk_offer_companion **ret_list, uint32_t *ret_count);

#endif
