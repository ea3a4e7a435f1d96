// SPDX-License-Identifier: Apache-2.0
//
// The parent of an image that is packed from a live source. A page that did not change stays where
// the parent has it, and is neither read nor compressed. So that a chain of children does not
// become slow to read, some of these pages are stored again all the same: see pack_choose.c.
#ifndef FAULTLINE_SNAPSHOT_PACK_PARENT_H
#define FAULTLINE_SNAPSHOT_PACK_PARENT_H

#include "snapshot/chunk.h"
#include "snapshot/identity.h"
#include "snapshot/image.h"
#include "snapshot/share_check.h"

#define FL_IDENTITY_WINDOW 128u
#define FL_IDENTITY_WINDOWS 4u

// Immutable once open.
struct fl_parent {
    struct fl_image *image;
    uint64_t *ids;  // of its packs
    uint16_t **use; // of each pack: of each frame, how many pages of the image it has
    bool *kept;     // of each pack: the child may use it
    bool all_kept;
};

// Identities that were read of packs: those of neighbours are seldom far. One thread.
struct fl_parent_identities {
    struct fl_identity_window {
        uint32_t pack;  // an index into the parent's pack table
        uint32_t count; // 0: nothing was read
        uint64_t first; // number among the pack's pages
        struct fl_identity identity[FL_IDENTITY_WINDOW];
    } window[FL_IDENTITY_WINDOWS];
    unsigned next; // the window that is given up next
};

// Opens the parent, which stays readable whatever becomes of its name. The caller holds the store's
// lock. -ENOENT; -ESTALE: it has other content; errors of opening an image, each with a sentence.
int fl_parent_open(struct fl_store *store, const char *name, const uint8_t *content_id,
                   struct fl_parent **ret_parent, struct fl_error *ret_error);
void fl_parent_free(struct fl_parent *parent); // NULL is a no-op

// The functions below may be called by any thread.

static inline const struct fl_pack *fl_parent_pack(const struct fl_parent *parent, uint64_t entry)
{
    return parent->image->packs[fl_entry_pack(entry)];
}
// Returns the entry of the parent's map: 0 for a zero page, and beyond the parent's end.
static inline uint64_t fl_parent_entry(const struct fl_parent *parent, uint64_t page)
{
    return page < parent->image->header.pages ? fl_image_entry(parent->image, page) : 0;
}
// Reads one page of the parent, which is not zero. Blocks on storage.
int fl_parent_read_page(const struct fl_parent *parent, uint64_t page, struct fl_share_room *room,
                        uint8_t *ret_page);
// Finds the identities of the parent's pages in the chunk's range. Blocks on storage.
int fl_parent_look(const struct fl_parent *parent, struct fl_chunk *chunk,
                   struct fl_parent_identities *identities);
// Decides which of the inherited pages stay where they are, and reads the others. Reports frames
// that cannot be read to `check`; their pages stay. Blocks on storage.
int fl_parent_settle(const struct fl_parent *parent, struct fl_chunk *chunk,
                     struct fl_share_check *check, struct fl_share_room *room);

// Adds the parent's pages from `page` on to the hash of all before, and compares it with the
// parent's content id. -EBADMSG: it is another one, so the parent is damaged.
int fl_parent_check(const struct fl_parent *parent, uint64_t page, struct fl_hasher *hasher);

#endif
