// SPDX-License-Identifier: Apache-2.0
//
// What a VMM does before its guest runs: memory, a userfaultfd over it, Firecracker's handshake.
// Errors are negative errno.
#ifndef FAULTLINE_BENCH_LOAD_GUEST_H
#define FAULTLINE_BENCH_LOAD_GUEST_H

#include <stddef.h>
#include <stdint.h>

struct bench_guest {
    unsigned char *base;
    uint64_t bytes;
    uint64_t page_size; // 4096, or 2 MiB on hugetlb
    int uffd;           // -1: mapped from a file, and nobody serves it
    int sock;           // stays open as long as the guest lives: its end is the death notice
};

// Maps `bytes` of anonymous memory (MAP_FAILED on failure), on huge pages if page_size is not 4096.
void *bench_map(uint64_t bytes, uint64_t page_size);

// Maps memory, registers it MISSING and hands the userfaultfd to the server at `socket_path`. Does
// not wait for the server. -ENOMEM (also: too few huge pages), -EPERM, -ENAMETOOLONG, or what
// connect() says.
int bench_guest_start(struct bench_guest *ret_guest, const char *socket_path, uint64_t bytes,
                      uint64_t page_size);
// The same, but the memory is a private mapping of the template whose socket that is: of its first
// `bytes`, in pages of 4 KiB. Also -ENOENT: there is no template, or it has gone meanwhile.
int bench_guest_start_template(struct bench_guest *ret_guest, const char *socket_path,
                               uint64_t bytes);
// Maps the raw memory file privately instead, as a VMM does that leaves its guest's memory to the
// kernel's page cache. -EINVAL: the file is shorter than `bytes`; or what open() or mmap() says.
int bench_guest_map(struct bench_guest *ret_guest, const char *path, uint64_t bytes);
// Unmaps and closes. Call it when no thread touches the memory any more.
void bench_guest_stop(struct bench_guest *guest);

#endif
