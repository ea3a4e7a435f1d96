// SPDX-License-Identifier: Apache-2.0
//
// An open pack: its descriptor and its verified frame table; and the registry through which the
// images of one reader share packs. A raw memory file is a pack too, of uncompressed frames without
// a table.
#ifndef FAULTLINE_SNAPSHOT_PACK_FILE_H
#define FAULTLINE_SNAPSHOT_PACK_FILE_H

#include <stdint.h>

#include "snapshot/format.h"

#define FL_PACK_NAME_BYTES 24 // "0123456789abcdef.pack" and NUL

struct fl_registry;
struct fl_pack;

void fl_pack_name(uint64_t id, char ret_name[FL_PACK_NAME_BYTES]);
// The id in a file name of packs/. -EINVAL if it is no pack's name.
int fl_pack_parse_name(const char *name, uint64_t *ret_id);

// The registry takes packs_fd over. Packs keep the registry alive.
int fl_registry_new(int packs_fd, struct fl_registry **ret_registry);
void fl_registry_unref(struct fl_registry *registry);

// Any thread; blocks on storage, but never while it holds the registry's lock. Opens the pack or
// takes a reference to the one that is open. -ENOENT; -EBADMSG if its tables are damaged.
int fl_pack_open(struct fl_registry *registry, uint64_t id, struct fl_pack **ret_pack);
// Takes fd over if it succeeds; bytes is the file's size.
int fl_pack_open_raw(int fd, uint64_t bytes, struct fl_pack **ret_pack);
void fl_pack_unref(struct fl_pack *pack);

// The rest reads immutable state: any thread.
uint64_t fl_pack_id(const struct fl_pack *pack);
uint32_t fl_pack_frames(const struct fl_pack *pack);
uint64_t fl_pack_pages(const struct fl_pack *pack);
uint64_t fl_pack_file_bytes(const struct fl_pack *pack);
// 0 if there is no such frame.
uint32_t fl_pack_frame_pages(const struct fl_pack *pack, uint32_t frame);
uint32_t fl_pack_frame_stored(const struct fl_pack *pack, uint32_t frame);
int fl_pack_read_frame(const struct fl_pack *pack, uint32_t frame, void *buf);

// For packing, verifying and collecting only (not for raw files): the identities of `count` pages
// from a slot on. They are not verified; fl_pack_check_identities does that for all of them.
int fl_pack_read_identities(const struct fl_pack *pack, uint32_t frame, uint32_t slot,
                            uint32_t count, struct fl_identity *ret_identities);
int fl_pack_check_identities(const struct fl_pack *pack);

#endif
