// SPDX-License-Identifier: Apache-2.0
//
// Looks for wanted pages in each kind of source. A page that is found goes to the scratch file.
// Only its SHA-256 says that it is the right one, so the source need not be trusted.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/heal.h"
#include "snapshot/io.h"
#include "snapshot/pack_list.h"

// Returns the first wanted page of this identity, or NULL. Others of the same identity follow it.
static struct fl_heal_page **find(const struct fl_heal *heal, const struct fl_identity *identity)
{
    uint64_t low = 0;
    uint64_t high = heal->by_identity_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (memcmp(&heal->by_identity[middle]->identity, identity, sizeof(*identity)) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == heal->by_identity_count ||
        memcmp(&heal->by_identity[low]->identity, identity, sizeof(*identity)) != 0)
        return NULL;
    return &heal->by_identity[low];
}

static bool wanted(const struct fl_heal *heal, const struct fl_identity *identity)
{
    struct fl_heal_page **page = find(heal, identity);
    return page && !(*page)->found;
}

static int take_page(struct fl_heal *heal, struct fl_heal_page *page, const void *bytes)
{
    uint64_t offset = (uint64_t)(page - heal->pages) * FL_PAGE_SIZE;
    int r =
        heal->scratch_fd < 0 ? 0 : fl_pwrite_full(heal->scratch_fd, bytes, FL_PAGE_SIZE, offset);
    if (r == 0) {
        page->found = true;
        heal->missing--;
    }
    return r;
}

int fl_heal_offer(struct fl_heal *heal, const void *bytes)
{
    struct fl_identity identity;
    int r = fl_hash_page(heal->hasher, bytes, &identity);
    struct fl_heal_page **page = r == 0 ? find(heal, &identity) : NULL;
    struct fl_heal_page **end = heal->by_identity + heal->by_identity_count;
    while (r == 0 && page && page < end &&
           memcmp(&(*page)->identity, &identity, sizeof(identity)) == 0) {
        if (!(*page)->found)
            r = take_page(heal, *page, bytes);
        page++;
    }
    return r;
}

static int report_step(const struct fl_heal *heal, uint64_t done, uint64_t total)
{
    return heal->progress ? fl_progress_call(heal->progress, done, total) : 0;
}

// A wrong checksum does not say which page is damaged. The frame is decoded all the same, as far as
// that is possible, because some pages may be right.
static void decode_damaged(const struct fl_pack *pack, uint32_t frame, uint8_t *room)
{
    size_t bytes = (size_t)fl_pack_frame_pages(pack, frame) * FL_PAGE_SIZE;
    memset(room, 0, bytes);
    fl_pack_salvage_frame(pack, frame, room);
}

static int offer_frame(struct fl_heal *heal, const struct fl_pack *pack, uint32_t frame)
{
    int r = 0;
    decode_damaged(pack, frame, heal->room);
    for (uint32_t slot = 0; r == 0 && slot < fl_pack_frame_pages(pack, frame); slot++)
        r = fl_heal_offer(heal, heal->room + (size_t)slot * FL_PAGE_SIZE);
    return r;
}

int fl_heal_from_frames(struct fl_heal *heal)
{
    int r = 0;
    uint32_t last = UINT32_MAX;
    for (uint64_t i = 0; r == 0 && heal->missing > 0 && i < heal->count; i++) {
        struct fl_pack *pack;
        uint32_t frame = heal->pages[i].frame;
        struct fl_frame_id id = heal->bad.ids[frame];
        if (frame == last || fl_pack_open(heal->store->reader->registry, id.pack, &pack) < 0)
            continue;
        last = frame;
        r = offer_frame(heal, pack, id.frame);
        fl_pack_unref(pack);
    }
    return r;
}

static bool frame_has_wanted(const struct fl_heal *heal, const struct fl_pack *pack, uint32_t frame,
                             bool *wants)
{
    struct fl_identity identities[FL_FRAME_PAGES_MAX];
    bool any = false;
    uint32_t pages = fl_pack_frame_pages(pack, frame);
    if (fl_pack_read_identities(pack, frame, 0, pages, identities) < 0)
        return false;
    for (uint32_t slot = 0; slot < pages; slot++)
        any |= wants[slot] = wanted(heal, &identities[slot]);
    return any;
}

int fl_heal_from_pack(struct fl_heal *heal, const struct fl_pack *pack)
{
    int r = 0;
    bool wants[FL_FRAME_PAGES_MAX];
    for (uint32_t frame = 0; r == 0 && heal->missing > 0 && frame < fl_pack_frames(pack); frame++) {
        if (!frame_has_wanted(heal, pack, frame, wants) ||
            fl_pack_read_frame(pack, frame, heal->room) < 0)
            continue;
        for (uint32_t slot = 0; r == 0 && slot < fl_pack_frame_pages(pack, frame); slot++) {
            if (wants[slot])
                r = fl_heal_offer(heal, heal->room + (size_t)slot * FL_PAGE_SIZE);
        }
    }
    return r;
}

int fl_heal_from_packs(struct fl_heal *heal, struct fl_registry *registry, int packs_fd)
{
    struct fl_pack_ids ids = {.ids = NULL};
    int r = fl_pack_ids_list(packs_fd, &ids);
    for (size_t i = 0; r == 0 && heal->missing > 0 && i < ids.count; i++) {
        struct fl_pack *pack;
        if (fl_pack_open(registry, ids.ids[i], &pack) == 0) {
            r = fl_heal_from_pack(heal, pack);
            fl_pack_unref(pack);
        }
        if (r == 0)
            r = report_step(heal, i + 1, ids.count);
    }
    free(ids.ids);
    return r;
}

// A partial last page is filled up with zeros, as it is in an image.
static int offer_range(struct fl_heal *heal, int fd, uint64_t at, uint64_t bytes)
{
    size_t pages = (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE;
    memset(heal->room + (pages - 1) * FL_PAGE_SIZE, 0, FL_PAGE_SIZE);
    int r = fl_pread_full(fd, heal->room, bytes, at);
    for (size_t i = 0; r == 0 && heal->missing > 0 && i < pages; i++) {
        const uint8_t *page = heal->room + i * FL_PAGE_SIZE;
        if (!fl_page_is_zero(page))
            r = fl_heal_offer(heal, page);
    }
    return r;
}

int fl_heal_from_memory(struct fl_heal *heal, int fd)
{
    const uint64_t most = (uint64_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE;
    uint64_t bytes;
    int r = fl_file_size(fd, &bytes);
    for (uint64_t at = 0; r == 0 && heal->missing > 0 && at < bytes;) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) // only a hole is left
            break;
        if (data < 0)
            return -errno;
        at = (uint64_t)data / FL_PAGE_SIZE * FL_PAGE_SIZE;
        if (at >= bytes)
            break;
        uint64_t length = bytes - at < most ? bytes - at : most;
        r = offer_range(heal, fd, at, length);
        at += length;
        if (r == 0)
            r = report_step(heal, at, bytes);
    }
    return r;
}
