// SPDX-License-Identifier: Apache-2.0
//
// The memory of a VM that maps its memory file privately, as Firecracker's `File` backend does:
// which process memory has which part of the file. A page of the process that is there and is not
// the file's is one that the guest has written to; the others are as in the file. Where anonymous
// memory was mapped over a part, as Firecracker's balloon does, that part is zeros until it is
// written to.
//
// One thread. Errors are sentences that name the process.
#ifndef FAULTLINE_TOOLS_VERBS_FILE_MEMORY_H
#define FAULTLINE_TOOLS_VERBS_FILE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "engine/host/presence.h"
#include "snapshot/error.h"

// A part of the file, bytes, multiples of 4 KiB.
struct file_piece {
    uint64_t start; // addresses in the process
    uint64_t end;
    uint64_t offset; // in the file
    bool zeros;      // anonymous: zeros where nothing is there
};

struct file_memory {
    pid_t pid;
    int pidfd;
    struct fl_presence presence; // these two belong to its address space, whatever it does
    int memory;
    int file;                 // to be read; what it was when it was last looked at
    struct stat status;       //
    uint64_t bytes;           // of the file
    struct file_piece *piece; // by their offsets; together they are the file
    size_t count;
    size_t room;
};

// Nothing is open: file_memory_close() is a no-op.
void file_memory_init(struct file_memory *memory);
// Finds the one file of so many bytes that the process maps privately, and where. Returns 0, or
// -errno and a sentence; file_memory_close() is to be called in any case.
int file_memory_open(pid_t pid, uint64_t bytes, struct file_memory *ret_memory,
                     struct fl_error *ret_error);
void file_memory_close(struct file_memory *memory);
// Looks where it is by now: for when the VM is paused. It must be the same file.
int file_memory_look_again(struct file_memory *memory, struct fl_error *ret_error);

// Calls fn with each run of pages that are there and not the file's: `address` in the process, and
// `offset` in the file. Stops at its first non-zero result, and returns it. -errno and a sentence
// if the process cannot be looked at, as it has ended.
int file_memory_each(const struct file_memory *memory,
                     int (*fn)(void *arg, uint64_t address, uint64_t offset, uint64_t bytes),
                     void *arg, struct fl_error *ret_error);
// Whether the file is still what it was when it was last looked at.
bool file_memory_file_is_same(const struct file_memory *memory);

#endif
