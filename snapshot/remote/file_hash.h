// SPDX-License-Identifier: Apache-2.0
//
// The SHA-256 of a file of the store: its identity in a remote store, where a pack's random id
// would say nothing of what the file has. That of a pack is remembered in an attribute of the file
// (user.faultline.sha256), with size and time, so that it goes when the file goes; a file system
// without attributes costs a pass over the file each time. Any thread; blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_FILE_HASH_H
#define FAULTLINE_SNAPSHOT_REMOTE_FILE_HASH_H

#include <stdbool.h>

#include "snapshot/remote/s3_text.h"

// -ECANCELED; errors of reading.
int fl_file_hash(int fd, bool (*cancelled)(void), char ret_hex[FL_HEX_BYTES], uint64_t *ret_bytes);
// The same, remembered.
int fl_pack_file_hash(int fd, bool (*cancelled)(void), char ret_hex[FL_HEX_BYTES],
                      uint64_t *ret_bytes);
// Notes what the caller knows of a file.
void fl_pack_file_note_hash(int fd, const char *hex);

#endif
