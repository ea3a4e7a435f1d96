// SPDX-License-Identifier: Apache-2.0
//
// Files behind the VM's drives, which are cloned (FICLONE) while it is paused: FILE to FILE.IMAGE,
// beside it. A clone shares its blocks with the file, so that it takes no time and no space.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_DRIVES_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_DRIVES_H

#include <stdbool.h>
#include <stddef.h>

#include "snapshot/error.h"

enum { DRIVES_MAX = 32 };

struct drive {
    const char *path;
    int source; // -1: not open
    int clone;  // -1: not open
    char *name; // the clone's
    char *old;  // where that is whose name the clone has got; NULL: there was none
    bool made;  // the clone has its name
};

struct drives {
    struct drive all[DRIVES_MAX];
    size_t count;
    bool replace; // clones of these names that are there
};

// Opens each file, makes an empty file beside it, and tries whether the file system can clone. An
// earlier clone of this name is an error, unless it may be replaced. Returns 0, or -errno and a
// sentence; in any case drives_end() is called.
int drives_begin(struct drives *drives, const char *image, struct fl_error *ret_error);
// Writes what is in the page cache to the disk, so that the clone in the pause has little to do.
int drives_flush(struct drives *drives, struct fl_error *ret_error);
// In the pause.
int drives_clone(struct drives *drives, struct fl_error *ret_error);
// Gives the clones their names.
int drives_keep(struct drives *drives, struct fl_error *ret_error);
// Takes their names from them; those that had these names before have them again.
void drives_undo(struct drives *drives);
void drives_end(struct drives *drives);

#endif
