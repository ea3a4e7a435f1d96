// SPDX-License-Identifier: Apache-2.0
//
// What must be known of a template to go on with it after the engine died: a memfd with this
// layout, beside the one that has its bytes.
//
// A page whose bit is set is there, and is the image's. A page may be there without its bit: its
// filler was killed in between, or a client read a hole that it did not have watched, which makes
// it zeros; such a page is compared before anything is made of it (template_pass.c).
#ifndef FAULTLINE_TEMPLATE_TEMPLATE_STATE_H
#define FAULTLINE_TEMPLATE_TEMPLATE_STATE_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine/base/image_name.h"

#define FL_TEMPLATE_STATE_MAGIC 0x74616c706d65746cULL // "ltemplat"
enum { FL_TEMPLATE_STATE_VERSION = 1 };

// Flags.
enum {
    FL_TEMPLATE_PINNED = 1,   // it was asked for: it stays without clones
    FL_TEMPLATE_COMPLETE = 2, // ... and to have all of it filled
    FL_TEMPLATE_SEALED = 4,   // all is there, and no process can write any more
};

struct fl_template_state {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes;                  // of this structure
    uint64_t total_bytes;            // of the memfd
    uint64_t filled_offset;          // bitmap, one bit a page; bytes from the beginning
    uint64_t pages;                  // of 4 KiB, of the image
    char image[FL_IMAGE_NAME_BYTES]; // its name
    _Atomic uint64_t flags;          // FL_TEMPLATE_*
    _Atomic uint64_t filled;         // bits that are set
    _Atomic uint64_t repaired;       // pages that were not the image's
    _Atomic uint64_t refused;        // pages that clones got privately for want of room
};

// Makes the memfd and maps it. -ENOMEM, -EMFILE ...
int fl_template_state_create(const char *image, uint64_t pages, int *ret_fd,
                             struct fl_template_state **ret_state);
// Maps that of a predecessor: -EINVAL if it is none or makes no sense, -EPROTONOSUPPORT if it is of
// another version. The caller keeps the descriptor.
int fl_template_state_open(int fd, struct fl_template_state **ret_state);
void fl_template_state_unmap(struct fl_template_state *state);

static inline _Atomic uint64_t *fl_template_filled(struct fl_template_state *state)
{
    return (_Atomic uint64_t *)((char *)state + state->filled_offset);
}

#endif
