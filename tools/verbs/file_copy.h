// SPDX-License-Identifier: Apache-2.0
//
// The image of a VM that maps its memory file (file_memory.h): what the guest has written is copied
// into a buffer while the VM is paused; the rest is read from the file when it is packed, or is as
// in the image if that is certain to be the same. One thread, but for file_copy_live().
#ifndef FAULTLINE_TOOLS_VERBS_FILE_COPY_H
#define FAULTLINE_TOOLS_VERBS_FILE_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/live.h"
#include "tools/verbs/file_memory.h"

struct file_copy {
    struct file_memory *memory; // the caller's
    int buffer;                 // the bytes of page p are at p * 4096; -1: none
    uint8_t *bytes;             // the buffer, mapped
    uint64_t pages;             // of the file
    uint64_t *data;             // bits: in the buffer
    uint64_t *zero;             //       zeros
    uint64_t copied;            // pages, in the pause
    bool as_parent;             // what is not in either is as in the image
    int (*check)(void *arg);    // may end the copying with its -errno; NULL: nothing does
    void *check_arg;
    int stopped; // by it: its -errno
    struct fl_pack_live live;
};

void file_copy_init(struct file_copy *copy);
// For the memory as it was looked at. Returns 0, or -errno and a sentence; file_copy_end() is to be
// called in any case.
int file_copy_begin(struct file_memory *memory, struct file_copy *ret_copy,
                    struct fl_error *ret_error);
void file_copy_end(struct file_copy *copy);
// While the VM runs: gets memory for what the guest has written so far. -ENOMEM and a sentence if
// the host has not enough.
int file_copy_reserve(struct file_copy *copy, struct fl_error *ret_error);
// While the VM is paused, after file_memory_look_again(): copies it. If `check` has ended
// it, copy->stopped is set, and there is no sentence.
int file_copy_take(struct file_copy *copy, struct fl_error *ret_error);
// The source for fl_store_pack(), until file_copy_end(): it has no parent yet.
struct fl_pack_live *file_copy_live(struct file_copy *copy);

#endif
