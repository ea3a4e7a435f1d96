// SPDX-License-Identifier: Apache-2.0
//
// Writes a new pack, in the order of its frames. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_PACK_WRITER_H
#define FAULTLINE_SNAPSHOT_PACK_WRITER_H

#include <stddef.h>

#include "snapshot/format.h"

struct fl_pack_writer;

// Chooses an id and begins a temporary file.
int fl_pack_writer_new(int tmp_fd, struct fl_pack_writer **ret_writer);
// Removes the temporary file unless it was published. NULL is a no-op.
void fl_pack_writer_free(struct fl_pack_writer *writer);

uint64_t fl_pack_writer_id(const struct fl_pack_writer *writer);
uint32_t fl_pack_writer_frames(const struct fl_pack_writer *writer);

// In tmp/, until it is published.
const char *fl_pack_writer_file(const struct fl_pack_writer *writer);

// Leaves the temporary file where it is: it is the caller's to remove.
void fl_pack_writer_leave(struct fl_pack_writer *writer);

// Appends frames whose stored bytes follow each other in `bytes`; sets their offsets. identities
// has one for each page.
int fl_pack_writer_append(struct fl_pack_writer *writer, struct fl_disk_frame *frames,
                          uint32_t count, const void *bytes, size_t len,
                          const struct fl_identity *identities);
// Writes the tables and publishes the pack in packs_fd. The pack must have at least one frame.
int fl_pack_writer_publish(struct fl_pack_writer *writer, int packs_fd, uint64_t *ret_bytes);

#endif
