// SPDX-License-Identifier: Apache-2.0
//
// What a VMM does before its guest runs: it maps memory, registers it with a userfaultfd and sends
// Firecracker's handshake. Errors are negative errno.
#ifndef FAULTLINE_BENCH_LOAD_GUEST_H
#define FAULTLINE_BENCH_LOAD_GUEST_H

#include <stddef.h>
#include <stdint.h>

struct bench_guest {
    unsigned char *base;
    uint64_t bytes;
    uint64_t page_size; // 4096, or 2 MiB on hugetlb
    int uffd;           // -1: the memory is a file's, and has no server
    int sock;           // its close tells the server that the VM has gone; -1: closed
};

// Maps `bytes` of anonymous memory (MAP_FAILED on failure), on huge pages if page_size is not 4096.
void *bench_map(uint64_t bytes, uint64_t page_size);

// Maps memory, registers it for missing pages and sends the userfaultfd to the server at
// `socket_path`. Does not wait for the server. -ENOMEM (also: too few huge pages), -EPERM,
// -ENAMETOOLONG, or what connect() says.
int bench_guest_start(struct bench_guest *ret_guest, const char *socket_path, uint64_t bytes,
                      uint64_t page_size);
// The same, with advice for the memory (of madvise()) before it is handed over. -EINVAL: the kernel
// has no such.
int bench_guest_start_advised(struct bench_guest *ret_guest, const char *socket_path,
                              uint64_t bytes, uint64_t page_size, int advice);
// The same with the socket of a template: the memory is a private mapping of the template's first
// `bytes`, in pages of 4 KiB. Also -ENOENT: there is no template, or it went away meanwhile.
int bench_guest_start_template(struct bench_guest *ret_guest, const char *socket_path,
                               uint64_t bytes);
// Maps a raw memory file privately instead, so that the kernel fills the memory from its page
// cache. -EINVAL: the file is shorter than `bytes`; or what open() or mmap() says.
int bench_guest_map(struct bench_guest *ret_guest, const char *path, uint64_t bytes);
// Unmaps and closes. No thread may touch the memory any more.
void bench_guest_stop(struct bench_guest *guest);

#endif
