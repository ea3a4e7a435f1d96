// SPDX-License-Identifier: Apache-2.0
//
// Heals damaged frames. Packs are immutable, so nothing is mended in place. The pages that images
// need of the bad frames are looked for elsewhere and stored in a new pack, and each image that
// needs one of them gets a new map that points there. Every page is known by its SHA-256, so a page
// may come from anywhere: other packs of the store, another store, a memory file, or what is left
// of the bad frame itself.
//
// Order of calls: fl_heal_new finds which pages are wanted. fl_heal_from_* look for them, in any
// order and until none is missing. fl_heal_publish writes. A kill leaves each image as it was or
// healed, and at most a pack that no image refers to.
//
// One thread uses a fl_heal. The caller holds the store's lock, shared.
#ifndef FAULTLINE_SNAPSHOT_HEAL_H
#define FAULTLINE_SNAPSHOT_HEAL_H

#include "snapshot/bad_frames.h"
#include "snapshot/identity.h"
#include "snapshot/store_dir.h"

// A page of a bad frame that an image needs.
struct fl_heal_page {
    struct fl_identity identity;
    uint32_t frame; // index into `bad`
    uint16_t slot;
    bool known; // its pack's table of identities is good
    bool found;
    uint64_t number; // once the new pack is written: its page there
};

struct fl_heal_image {
    char name[FL_NAME_MAX + 1];
    uint64_t bad_pages; // before
    uint64_t left;      // not healed: all bad_pages until fl_heal_publish
    int error;          // why the image cannot be opened or written; 0: it can
};

struct fl_heal {
    struct fl_store *store;
    const struct fl_progress *progress; // may be NULL
    struct fl_bad_frames bad;           // sorted
    struct fl_heal_page *pages;         // sorted by frame and slot
    uint64_t count, missing;
    struct fl_heal_page **by_identity; // those that are known
    uint64_t by_identity_count;
    struct fl_heal_image *images; // that have bad pages, or cannot be opened
    size_t images_count, images_room;
    bool dry_run;
    int scratch_fd; // page i of it: what was found for pages[i]
    struct fl_hasher *hasher;
    uint8_t *room;          // a frame
    uint64_t pack_id;       // of the new pack; 0: none was needed
    uint64_t stored_bytes;  // of it
    uint64_t images_healed; // have their new map
    int index_error;        // of adding it to the index
    bool index_rebuilt;
};

// Takes a copy of `bad`, which is sorted. Release with fl_heal_free. -ENOMEM, errors of listing.
int fl_heal_new(struct fl_store *store, const struct fl_bad_frames *bad, bool dry_run,
                const struct fl_progress *progress, struct fl_heal **ret_heal);
void fl_heal_free(struct fl_heal *heal); // NULL is a no-op

// Offers a page from any source. Computes its identity and keeps the page if it is wanted.
int fl_heal_offer(struct fl_heal *heal, const void *page);

// Takes the pages of the bad frames that are right all the same.
int fl_heal_from_frames(struct fl_heal *heal);
// Takes pages from a pack of this or of another store. If a part of it cannot be read, the rest is
// used.
int fl_heal_from_pack(struct fl_heal *heal, const struct fl_pack *pack);
// Takes pages from all packs of a store.
int fl_heal_from_packs(struct fl_heal *heal, struct fl_registry *registry, int packs_fd);
// Takes pages from a memory file.
int fl_heal_from_memory(struct fl_heal *heal, int fd);

// Writes what was found and gives the images their new maps; the index learns the new places. In a
// dry run it finds out what would be left, and writes nothing. An error means that nothing more can
// be written: images that were healed before stay healed.
int fl_heal_publish(struct fl_heal *heal);

// Returns true if an image needs, or may need, a page of bad.ids[frame] that is not healed.
bool fl_heal_needs(const struct fl_heal *heal, size_t frame);

// Writes to the store's list of bad frames which of them are still needed.
int fl_heal_note(struct fl_heal *heal);

#endif
