// SPDX-License-Identifier: Apache-2.0
//
// An open pack has a descriptor and a frame table (pack_table.h). The images of one reader share
// their packs through a registry. A raw memory file is a pack, too: of uncompressed frames and
// without a table.
#ifndef FAULTLINE_SNAPSHOT_PACK_FILE_H
#define FAULTLINE_SNAPSHOT_PACK_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/format.h"
#include "snapshot/offer_table.h"

struct fl_registry;
struct fl_pack;

// The registry takes packs_fd over. Each of its packs holds a reference to the registry. -ENOMEM.
int fl_registry_new(int packs_fd, struct fl_registry **ret_registry);
void fl_registry_unref(struct fl_registry *registry);

// Opens the pack, or takes a reference to it if it is open. Any thread; blocks on storage, but
// never while it holds the registry's lock. -ENOENT; -EBADMSG: its header, its footer or the list
// of its table's pieces is damaged.
int fl_pack_open(struct fl_registry *registry, uint64_t id, struct fl_pack **ret_pack);
// Opens a pack from an open file of any name. The pack has one owner, and no registry knows it.
// Takes fd over in every case. -EBADMSG: it is not the pack of this id.
int fl_pack_open_fd(int fd, uint64_t id, struct fl_pack **ret_pack);
// Opens the pack that is being written for an image on offer, from its open file. Has one owner, as
// above, and takes fd over; `offer` must outlive it. Its pages have no identities.
int fl_pack_open_offered(int fd, uint64_t id, const struct fl_offer_table *offer,
                         struct fl_pack **ret_pack);
// Makes a pack of a raw memory file; bytes is the file's size. Takes fd over if it succeeds.
int fl_pack_open_raw(int fd, uint64_t bytes, struct fl_pack **ret_pack);
void fl_pack_unref(struct fl_pack *pack);

// Any thread may call the functions below. A function that takes a frame blocks on storage if the
// frame's piece of the table was not read yet; fl_pack_know_frame() reads it.
uint64_t fl_pack_id(const struct fl_pack *pack);
bool fl_pack_is_raw(const struct fl_pack *pack);
int fl_pack_fd(const struct fl_pack *pack); // the pack owns it: do not close it
uint32_t fl_pack_frames(const struct fl_pack *pack);
uint64_t fl_pack_pages(const struct fl_pack *pack);
uint64_t fl_pack_file_bytes(const struct fl_pack *pack);
// Read and check the piece of the table that has the frame, or the whole table. Return 0 also if
// there is no such frame. -EBADMSG, -ENOMEM, errors of reading.
int fl_pack_know_frame(const struct fl_pack *pack, uint32_t frame);
int fl_pack_know_all(const struct fl_pack *pack);
// Return 0 if there is no such frame, or if its piece of the table cannot be read.
uint32_t fl_pack_frame_pages(const struct fl_pack *pack, uint32_t frame);
uint32_t fl_pack_frame_stored(const struct fl_pack *pack, uint32_t frame);
// What the pack's table says of a frame. -EINVAL: there is no such frame; errors of reading.
int fl_pack_frame_entry(const struct fl_pack *pack, uint32_t frame,
                        struct fl_disk_frame *ret_entry);
int fl_pack_read_frame(const struct fl_pack *pack, uint32_t frame, void *buf);
// Decompresses what it can of a damaged frame into buf, which has room for the frame's pages. Any
// byte of it may be wrong.
void fl_pack_salvage_frame(const struct fl_pack *pack, uint32_t frame, void *buf);
// Read a frame in two steps: see fl_frame_place() and fl_frame_unpack().
int fl_pack_frame_place(const struct fl_pack *pack, uint32_t frame,
                        struct fl_frame_place *ret_place);
int fl_pack_unpack_frame(const struct fl_pack *pack, uint32_t frame, const void *stored, void *buf);

// Reads the identities of `count` pages from a slot on, unverified; fl_pack_check_identities
// verifies those of all pages. For packing, verifying and collecting only, and not for raw files.
int fl_pack_read_identities(const struct fl_pack *pack, uint32_t frame, uint32_t slot,
                            uint32_t count, struct fl_identity *ret_identities);
// Returns the number of a page among all pages of the pack: consecutive numbers have consecutive
// identities. Errors as those of fl_pack_know_frame; -EINVAL: there is no such page.
int fl_pack_page_number(const struct fl_pack *pack, uint32_t frame, uint32_t slot,
                        uint64_t *ret_number);
int fl_pack_check_identities(const struct fl_pack *pack);

#endif
