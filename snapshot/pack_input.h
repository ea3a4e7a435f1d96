// SPDX-License-Identifier: Apache-2.0
//
// The memory file that is packed. Holes are cut out as chunks of their own.
#ifndef FAULTLINE_SNAPSHOT_PACK_INPUT_H
#define FAULTLINE_SNAPSHOT_PACK_INPUT_H

#include <sys/stat.h>

#include "snapshot/error.h"
#include "snapshot/pack_run.h"

// Opens a regular file of at least 1 byte. `what` is "memory file" or the like. The caller closes
// *ret_fd in every case.
int fl_input_open(const char *what, const char *path, int *ret_fd, struct stat *ret_stat,
                  struct fl_error *ret_error);
// Looks whether the file is what it was: a torn snapshot has no use.
int fl_input_unchanged(const char *what, const char *path, int fd, const struct stat *then,
                       struct fl_error *ret_error);

// The stages for a chunk of the memory file: cut it off, and read its bytes.
int fl_input_next(struct fl_pack_run *run, struct fl_chunk *chunk);
int fl_input_read(struct fl_pack_run *run, struct fl_chunk *chunk);

#endif
