// SPDX-License-Identifier: Apache-2.0
//
// An open pack: its descriptor and its frame table (pack_table.h); and the registry through which
// the images of one reader share packs. A raw memory file is a pack too, of uncompressed frames
// without a table.
#ifndef FAULTLINE_SNAPSHOT_PACK_FILE_H
#define FAULTLINE_SNAPSHOT_PACK_FILE_H

#include <stdint.h>

#include "snapshot/format.h"

struct fl_registry;
struct fl_pack;

// The registry takes packs_fd over. Packs keep the registry alive.
int fl_registry_new(int packs_fd, struct fl_registry **ret_registry);
void fl_registry_unref(struct fl_registry *registry);

// Any thread; blocks on storage, but never while it holds the registry's lock. Opens the pack or
// takes a reference to the one that is open. -ENOENT; -EBADMSG if its header, its footer or the
// list of its table's pieces is damaged.
int fl_pack_open(struct fl_registry *registry, uint64_t id, struct fl_pack **ret_pack);
// The same from an open file, whatever its name: a pack of one owner, which no registry knows.
// Takes fd over in every case. -EBADMSG if it is not the pack of this id.
int fl_pack_open_fd(int fd, uint64_t id, struct fl_pack **ret_pack);
// Takes fd over if it succeeds; bytes is the file's size.
int fl_pack_open_raw(int fd, uint64_t bytes, struct fl_pack **ret_pack);
void fl_pack_unref(struct fl_pack *pack);

// The rest: any thread. What asks for a frame blocks on storage where nobody has asked for one of
// the same piece of the table before; fl_pack_know_frame() has seen to it.
uint64_t fl_pack_id(const struct fl_pack *pack);
int fl_pack_fd(const struct fl_pack *pack); // the pack's own: not to be closed
uint32_t fl_pack_frames(const struct fl_pack *pack);
uint64_t fl_pack_pages(const struct fl_pack *pack);
uint64_t fl_pack_file_bytes(const struct fl_pack *pack);
// Reads and checks what the table has of a frame, or all of it. 0 also if there is no such frame.
// -EBADMSG, -ENOMEM, errors of reading.
int fl_pack_know_frame(const struct fl_pack *pack, uint32_t frame);
int fl_pack_know_all(const struct fl_pack *pack);
// 0 if there is no such frame, or what the table has of it cannot be read.
uint32_t fl_pack_frame_pages(const struct fl_pack *pack, uint32_t frame);
uint32_t fl_pack_frame_stored(const struct fl_pack *pack, uint32_t frame);
int fl_pack_read_frame(const struct fl_pack *pack, uint32_t frame, void *buf);
// What a damaged frame gives without its checksum: buf, of the frame's pages, is written as far as
// that goes. No byte of it may be believed.
void fl_pack_salvage_frame(const struct fl_pack *pack, uint32_t frame, void *buf);
// Reading in two steps: see fl_frame_place() and fl_frame_unpack().
int fl_pack_frame_place(const struct fl_pack *pack, uint32_t frame,
                        struct fl_frame_place *ret_place);
int fl_pack_unpack_frame(const struct fl_pack *pack, uint32_t frame, const void *stored, void *buf);

// For packing, verifying and collecting only (not for raw files): the identities of `count` pages
// from a slot on. They are not verified; fl_pack_check_identities does that for all of them.
int fl_pack_read_identities(const struct fl_pack *pack, uint32_t frame, uint32_t slot,
                            uint32_t count, struct fl_identity *ret_identities);
int fl_pack_check_identities(const struct fl_pack *pack);

#endif
