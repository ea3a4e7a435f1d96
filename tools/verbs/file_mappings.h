// SPDX-License-Identifier: Apache-2.0
//
// What /proc/PID/maps says of files and of anonymous memory, and the search for the parts of one
// file in it. Of text: no process is looked at. Any thread.
#ifndef FAULTLINE_TOOLS_VERBS_FILE_MAPPINGS_H
#define FAULTLINE_TOOLS_VERBS_FILE_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/verbs/file_memory.h"

struct file_mapping {
    uint64_t start;
    uint64_t end;
    uint64_t offset; // in its file
    uint64_t device; // as maps has it: not always that of stat()
    uint64_t inode;  // 0: anonymous
    bool shared;
    bool writable;
    bool plain; // anonymous, and not a stack, a heap or the kernel's own
};

struct file_mappings {
    struct file_mapping *all; // by address
    size_t count;
    size_t room;
};

// Reads all lines. Returns 0 or -errno. file_mappings_free() in any case.
int file_mappings_read(FILE *maps, struct file_mappings *ret_mappings);
void file_mappings_free(struct file_mappings *mappings);

// Where the file of the mapping `of`, of so many bytes, is mapped: all of it, by its offsets.
// Anonymous memory that lies where a part of the file would be counts as mapped over it. Sets the
// pieces of *memory. 0; -EINVAL and a sentence about "it", such as "maps bytes 0 to 4096 twice";
// -ENOMEM and one.
int file_mappings_pieces(const struct file_mappings *mappings, const struct file_mapping *of,
                         uint64_t bytes, struct file_memory *memory, struct fl_error *ret_error);

#endif
