// SPDX-License-Identifier: Apache-2.0
//
// Whole reads and writes, durable directories, and descriptors and buffers that close themselves.
// Any thread. Errors are negative errno.
#ifndef FAULTLINE_SNAPSHOT_IO_H
#define FAULTLINE_SNAPSHOT_IO_H

#include <stddef.h>
#include <stdint.h>

#define FL_AUTO_CLOSE __attribute__((cleanup(fl_cleanup_close)))
#define FL_AUTO_FREE __attribute__((cleanup(fl_cleanup_free)))

void fl_cleanup_close(int *fd);
void fl_cleanup_free(void *pointer);

// The file ends before len bytes: -EBADMSG, which is what a short file of the store means.
int fl_pread_full(int fd, void *buf, size_t len, uint64_t offset);
int fl_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset);
int fl_sync_dir(int dir_fd);
int fl_file_size(int fd, uint64_t *ret_bytes);

// A private anonymous mapping, all zero, on huge pages where it is large, and not in core dumps,
// which it would make long; NULL if there is no memory. Its owner gives it back with fl_unmap and
// the same size.
void *fl_map_memory(size_t bytes);
void fl_unmap(void *memory, size_t bytes);

uint64_t fl_checksum(const void *bytes, size_t len); // XXH3-64

// Reads the header of a file of the store, whose first bytes are its magic and then the version,
// and whose last are the checksum of those before. *ret_file_bytes is the file's size. -EBADMSG,
// -EPROTONOSUPPORT (a version that is none of 1 to `newest`), errors of reading; the fields between
// are not looked at.
int fl_read_header(int fd, const uint8_t *magic, uint32_t newest, void *ret_header, size_t size,
                   uint64_t *ret_file_bytes);

#endif
