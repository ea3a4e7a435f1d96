// SPDX-License-Identifier: Apache-2.0
//
// A VM whose fault handler is gone: what is known of it, and what follows from that. orphan_look.h
// finds it out. Any thread, one at a time for one orphan.
#ifndef FAULTLINE_RESCUE_ORPHAN_H
#define FAULTLINE_RESCUE_ORPHAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/host/procfs.h"
#include "engine/host/region.h"
#include "engine/vm/vm_state.h"
#include "snapshot/error.h"

enum fl_layout_from {
    FL_LAYOUT_UNKNOWN,
    FL_LAYOUT_KEPT,    // by a Faultline that served it
    FL_LAYOUT_GIVEN,   // fl_orphan_set_regions()
    FL_LAYOUT_FOUND,   // by its content
    FL_LAYOUT_ASSUMED, // one range of the image's size: it is the image from its beginning
};

struct fl_orphan_holder {
    pid_t pid;
    pid_t tid;
    int fd;
    char name[FL_PROC_NAME];
};

struct fl_orphan {
    pid_t pid;
    char name[FL_PROC_NAME];
    int pidfd;
    int uffd; // ours, of the VMM's `fd`
    int fd;
    uint64_t inode;
    uint64_t features;
    uint64_t waiting; // faults, read or not
    size_t ranges;    // of the VMM's memory that are registered with it, neighbours as one
    struct fl_proc_range *range;
    size_t holders; // processes other than the VMM that have it open, and are not about to end
    struct fl_orphan_holder *holder;
    int state_fd; // -1: none was kept
    struct fl_vm_state *state;
    struct fl_orphan_holder state_holder;
    bool state_unreadable;   // one is kept (by state_holder), but of another version of faultline
    struct fl_layout layout; // no regions: not known
    enum fl_layout_from layout_from;
};

// Closes and frees what it owns, and leaves it empty.
void fl_orphan_close(struct fl_orphan *orphan);

// Takes the layout from the text of a handshake. -EINVAL with a sentence: it makes no sense, or
// memory is registered that it does not speak of.
int fl_orphan_set_regions(struct fl_orphan *orphan, const char *text, struct fl_error *ret_error);

// True if each range lies in regions of the layout, and is of its page size.
bool fl_orphan_covered(const struct fl_orphan *orphan, const struct fl_layout *layout);
// Bytes that are registered, in all ranges.
uint64_t fl_orphan_bytes(const struct fl_orphan *orphan);
// The layout in which the one range is the image from its beginning. False if there are more
// ranges, or it is not as large as the image (image_bytes, a multiple of its page size; 0:
// unknown).
bool fl_orphan_one_region(const struct fl_orphan *orphan, uint64_t image_bytes,
                          struct fl_layout *ret_layout);

// True if pages that look as if they were never filled may be ones that the guest gave back, so
// that the image's bytes would be wrong at unknown places.
bool fl_orphan_unknowable(const struct fl_orphan *orphan);

#endif
