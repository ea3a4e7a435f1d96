// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes that are whole or fail, durable directories, and descriptors and buffers that
// release themselves at the end of their scope. Any thread. Errors are negative errno.
#ifndef FAULTLINE_SNAPSHOT_IO_H
#define FAULTLINE_SNAPSHOT_IO_H

#include <stddef.h>
#include <stdint.h>

#define FL_AUTO_CLOSE __attribute__((cleanup(fl_cleanup_close)))
#define FL_AUTO_FREE __attribute__((cleanup(fl_cleanup_free)))

void fl_cleanup_close(int *fd);
void fl_cleanup_free(void *pointer);

// Reads len bytes. -EBADMSG: the file ends before that, which means that a file of the store is
// damaged.
int fl_pread_full(int fd, void *buf, size_t len, uint64_t offset);
int fl_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset);
int fl_sync_dir(int dir_fd);
int fl_file_size(int fd, uint64_t *ret_bytes);

// Returns a private anonymous mapping, all zero; NULL if there is no memory. A large one is on huge
// pages. It is left out of core dumps, which it would make long. Its owner releases it with
// fl_unmap and the same size.
void *fl_map_memory(size_t bytes);
// The same, never on huge pages: for memory of which little may be used.
void *fl_map_small_pages(size_t bytes);
void fl_unmap(void *memory, size_t bytes);

uint64_t fl_checksum(const void *bytes, size_t len); // XXH3-64

// Reads the header of a file of the store: it begins with the magic and the version, and its last
// field is the checksum of the bytes before. Does not look at the fields between. *ret_file_bytes
// is the file's size. -EBADMSG; -EPROTONOSUPPORT: the version is not from 1 to `newest`; errors of
// reading.
int fl_read_header(int fd, const uint8_t *magic, uint32_t newest, void *ret_header, size_t size,
                   uint64_t *ret_file_bytes);

#endif
