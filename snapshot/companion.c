// SPDX-License-Identifier: Apache-2.0
#include "snapshot/companion.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/io.h"

uint64_t fl_companion_first_page(const struct fl_image *image, const struct fl_image_tail *tail,
                                 uint32_t number)
{
    const struct fl_disk_companion *companions = fl_image_tail_companions(tail);
    uint64_t page = image->header.pages;
    for (uint32_t i = 0; i < number; i++)
        page += fl_companion_pages(companions[i].bytes);
    return page;
}

uint64_t fl_companion_bad_pages(const struct fl_image *image, const struct fl_image_tail *tail,
                                uint32_t number, const struct fl_bad_frames *bad)
{
    uint64_t page = fl_companion_first_page(image, tail, number);
    uint64_t end = page + fl_companion_pages(fl_image_tail_companions(tail)[number].bytes);
    uint64_t pages = 0;
    for (; page < end; page++) {
        struct fl_run run = fl_image_run(image, page, 1);
        pages += !run.zero && fl_bad_frames_find(bad, run.id);
    }
    return pages;
}

int fl_image_run_identities(const struct fl_image *image, uint64_t page, const struct fl_run *run,
                            struct fl_identity *ret_identities)
{
    if (run->zero) {
        for (uint32_t i = 0; i < run->pages; i++)
            ret_identities[i] = fl_zero_identity;
        return 0;
    }
    const struct fl_pack *pack = image->packs[fl_entry_pack(fl_image_entry(image, page))];
    return fl_pack_read_identities(pack, run->id.frame, run->slot, run->pages, ret_identities);
}

// A companion that is read, run by run.
struct walk {
    const struct fl_image *image;
    const struct fl_disk_companion *disk;
    struct fl_hasher *content; // of the identities
    struct fl_hasher *page;
    struct fl_identity identities[FL_FRAME_PAGES_MAX];
    uint8_t pages[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
};

static struct fl_run run_at(const struct walk *walk, uint64_t first, uint64_t at)
{
    uint64_t left = fl_companion_pages(walk->disk->bytes) - at;
    return fl_image_run(walk->image, first + at,
                        left < FL_FRAME_PAGES_MAX ? (uint32_t)left : FL_FRAME_PAGES_MAX);
}

static int end_walk(struct walk *walk)
{
    struct fl_identity content;
    int r = fl_hash_finish(walk->content, &content);
    if (r < 0)
        return r;
    return memcmp(&content, &walk->disk->content_id, sizeof(content)) == 0 ? 0 : -EBADMSG;
}

static void free_walk(struct walk *walk)
{
    if (!walk)
        return;
    fl_hasher_free(walk->content);
    fl_hasher_free(walk->page);
    free(walk);
}

static int new_walk(const struct fl_image *image, const struct fl_image_tail *tail, uint32_t number,
                    struct walk **ret_walk)
{
    struct walk *walk = calloc(1, sizeof(*walk));
    if (!walk)
        return -ENOMEM;
    walk->image = image;
    walk->disk = &fl_image_tail_companions(tail)[number];
    int r = fl_hasher_new(&walk->content);
    if (r == 0)
        r = fl_hasher_new(&walk->page);
    if (r == 0)
        r = fl_hash_start(walk->content);
    if (r < 0) {
        free_walk(walk);
        return r;
    }
    *ret_walk = walk;
    return 0;
}

int fl_companion_check(const struct fl_image *image, const struct fl_image_tail *tail,
                       uint32_t number)
{
    struct walk *walk;
    uint64_t first = fl_companion_first_page(image, tail, number);
    int r = new_walk(image, tail, number, &walk);
    if (r < 0)
        return r;
    for (uint64_t at = 0; r == 0 && at < fl_companion_pages(walk->disk->bytes);) {
        struct fl_run run = run_at(walk, first, at);
        r = fl_image_run_identities(image, first + at, &run, walk->identities);
        if (r == 0)
            r = fl_hash_update(walk->content, walk->identities,
                               run.pages * sizeof(walk->identities[0]));
        at += run.pages;
    }
    if (r == 0)
        r = end_walk(walk);
    free_walk(walk);
    return r;
}

// Hashes the pages of a run, which are in walk->pages from `slot` on.
static int hash_run(struct walk *walk, uint32_t slot, uint32_t pages)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < pages; i++)
        r = fl_hash_page(walk->page, walk->pages + (size_t)(slot + i) * FL_PAGE_SIZE,
                         &walk->identities[i]);
    return r < 0 ? r
                 : fl_hash_update(walk->content, walk->identities,
                                  pages * sizeof(walk->identities[0]));
}

static int write_run(struct walk *walk, const struct fl_run *run, uint64_t at, int fd,
                     bool *ret_output_failed)
{
    uint64_t offset = at * FL_PAGE_SIZE;
    uint64_t left = walk->disk->bytes - offset;
    size_t bytes = (size_t)run->pages * FL_PAGE_SIZE;
    uint32_t slot = run->zero ? 0 : run->slot;
    int r = 0;
    if (run->zero)
        memset(walk->pages, 0, bytes);
    else
        r = fl_frame_read(walk->image, run->id, walk->pages);
    if (r == 0)
        r = hash_run(walk, slot, run->pages);
    if (r < 0)
        return r;
    r = fl_pwrite_full(fd, walk->pages + (size_t)slot * FL_PAGE_SIZE, bytes < left ? bytes : left,
                       offset);
    *ret_output_failed = r < 0;
    return r;
}

int fl_companion_write(const struct fl_image *image, const struct fl_image_tail *tail,
                       uint32_t number, int fd, bool *ret_output_failed)
{
    struct walk *walk;
    uint64_t first = fl_companion_first_page(image, tail, number);
    int r = new_walk(image, tail, number, &walk);
    if (r < 0)
        return r;
    for (uint64_t at = 0; r == 0 && at < fl_companion_pages(walk->disk->bytes);) {
        struct fl_run run = run_at(walk, first, at);
        r = write_run(walk, &run, at, fd, ret_output_failed);
        at += run.pages;
    }
    if (r == 0)
        r = end_walk(walk);
    free_walk(walk);
    return r;
}
