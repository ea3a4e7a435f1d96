// SPDX-License-Identifier: Apache-2.0
//
// Tells of images: their headers, their names, what they are made of. Removes an image.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/image_tail.h"
#include "snapshot/io.h"
#include "snapshot/pack_name.h"
#include "snapshot/store_dir.h"
#include "snapshot/trace_store.h"

#define RANGE_PAGES 512u

// Counts the packs that the image names and the store does not have.
static int count_missing(struct fl_store *store, int fd, const struct fl_disk_image_header *header,
                         uint64_t *ret_missing)
{
    FL_AUTO_FREE uint64_t *ids = NULL;
    uint64_t missing = 0;
    int r = fl_image_file_packs(fd, header, &ids);
    for (uint32_t i = 0; r == 0 && i < header->packs; i++) {
        char name[FL_PACK_NAME_BYTES];
        fl_pack_name(ids[i], name);
        missing +=
            faccessat(store->packs_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
    }
    if (r == 0)
        *ret_missing = missing;
    return r;
}

static void fill_info(const struct fl_disk_image_header *header,
                      const struct fl_disk_image_footer *footer, struct fl_image_info *ret_info)
{
    struct fl_image_info info = {
        .bytes = header->bytes,
        .pages = header->pages,
        .zero_pages = header->zero_pages,
        .duplicate_pages = header->duplicate_pages,
        .shared_pages = header->shared_pages,
        .stored_pages = header->stored_pages,
        .declined_pages = header->declined_pages,
        .created = header->created,
        .packs = header->packs,
        .companions = footer->companions,
        .companion_pages = footer->companion_pages,
    };
    memcpy(info.parent, footer->parent, sizeof(info.parent));
    memcpy(info.parent_content_id, footer->parent_content_id.bytes, sizeof(info.parent_content_id));
    memcpy(info.name, header->name, sizeof(info.name) - 1);
    memcpy(info.content_id, header->content_id.bytes, sizeof(info.content_id));
    *ret_info = info;
}

// -EAGAIN: packs are missing, but the image was replaced or removed meanwhile and the store
// collected.
static int look(struct fl_store *store, const char *name, const char *file_name,
                struct fl_disk_image_header *ret_header, struct fl_disk_image_footer *ret_footer,
                uint64_t *ret_missing)
{
    FL_AUTO_CLOSE int fd =
        openat(store->reader->images_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r = fd < 0 ? -errno : fl_image_file_header(fd, name, ret_header);
    if (r == 0)
        r = fl_image_file_footer(fd, ret_header, ret_footer);
    if (r == 0)
        r = count_missing(store, fd, ret_header, ret_missing);
    if (r == 0 && *ret_missing > 0 && !fl_file_still_published(store->reader, file_name, fd))
        r = -EAGAIN;
    return r;
}

int fl_store_image_info(struct fl_store *store, const char *name, struct fl_image_info *ret_info,
                        struct fl_error *ret_error)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    struct fl_disk_image_header header;
    struct fl_disk_image_footer footer;
    uint64_t missing = 0;
    int r = fl_image_file_name(name, file_name);
    if (r == 0) {
        do
            r = look(store, name, file_name, &header, &footer, &missing);
        while (r == -EAGAIN);
    }
    if (r < 0)
        return fl_image_failed(store, name, r, ret_error);
    fill_info(&header, &footer, ret_info);
    ret_info->packs_missing = missing;
    return 0;
}

static int tell_about(int fd, const char *name, struct fl_image_about *ret_about)
{
    struct fl_disk_image_header header;
    struct fl_image_tail tail = {.about = NULL};
    int r = fl_image_file_header(fd, name, &header);
    if (r == 0)
        r = fl_image_file_footer(fd, &header, &tail.footer);
    if (r == 0)
        r = fl_image_file_about(fd, &tail.footer, &tail.about);
    if (r == 0)
        r = fl_image_tail_tell(&tail, ret_about);
    fl_image_tail_free(&tail);
    return r;
}

int fl_store_image_about(struct fl_store *store, const char *name, struct fl_image_about *ret_about,
                         struct fl_error *ret_error)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    int r = fl_image_file_name(name, file_name);
    if (r < 0)
        return fl_image_failed(store, name, r, ret_error);
    FL_AUTO_CLOSE int fd =
        openat(store->reader->images_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    r = fd < 0 ? -errno : tell_about(fd, name, ret_about);
    return r < 0 ? fl_image_failed(store, name, r, ret_error) : 0;
}

struct names {
    char **names;
    size_t count, room;
};

static int add_name(void *arg, const char *name)
{
    struct names *list = arg;
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 16;
        char **names = realloc(list->names, room * sizeof(*names));
        if (!names)
            return -ENOMEM;
        list->names = names;
        list->room = room;
    }
    list->names[list->count] = strdup(name);
    if (!list->names[list->count])
        return -ENOMEM;
    list->count++;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int fl_store_image_names(struct fl_store *store, char ***ret_names, size_t *ret_count,
                         struct fl_error *ret_error)
{
    struct names list = {.names = NULL};
    int r = fl_reader_list(store->reader, add_name, &list);
    if (r < 0) {
        fl_store_free_names(list.names, list.count);
        return fl_fail(ret_error, r, "cannot list the images of the store %s", store->dir);
    }
    if (list.count > 0)
        qsort(list.names, list.count, sizeof(*list.names), compare_names);
    *ret_names = list.names;
    *ret_count = list.count;
    return 0;
}

void fl_store_free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static int compare_entries(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

// Sorts the places and drops those that come twice; returns how many are left.
static uint64_t unique(uint64_t *places, uint64_t count)
{
    uint64_t kept = 0;
    if (count > 1)
        qsort(places, count, sizeof(*places), compare_entries);
    for (uint64_t i = 0; i < count; i++) {
        if (kept == 0 || places[kept - 1] != places[i])
            places[kept++] = places[i];
    }
    return kept;
}

// Appends the frames of one range to places.
static uint64_t range_places(const struct fl_image *image, uint64_t first, uint64_t *places)
{
    uint64_t left = image->header.pages - first;
    uint64_t pages = left < RANGE_PAGES ? left : RANGE_PAGES;
    uint64_t count = 0;
    for (uint64_t page = first; page < first + pages; page++) {
        uint64_t entry = fl_image_entry(image, page);
        if (entry != 0)
            places[count++] = fl_entry_place(entry);
    }
    return unique(places, count);
}

static void add_frames(const struct fl_image *image, const uint64_t *places,
                       struct fl_image_detail *detail)
{
    for (uint64_t i = 0; i < detail->frames; i++) {
        const struct fl_pack *pack = image->packs[fl_entry_pack(places[i])];
        detail->stored_bytes += fl_pack_frame_stored(pack, fl_entry_frame(places[i]));
        detail->frame_pages += fl_pack_frame_pages(pack, fl_entry_frame(places[i]));
    }
}

// Returns a bound on the number of pages that are not zero.
static uint64_t stored_pages_most(const struct fl_image *image)
{
    uint64_t pages = image->header.pages;
    uint64_t most = 0;
    for (uint64_t page = 0; (page = fl_image_skip_zero(image, page)) < pages; page += RANGE_PAGES)
        most += RANGE_PAGES;
    return most;
}

static int measure(const struct fl_image *image, struct fl_image_detail *detail)
{
    size_t room = stored_pages_most(image) * sizeof(uint64_t);
    uint64_t *places = fl_map_memory(room ? room : 1);
    if (!places)
        return -ENOMEM;
    uint64_t count = 0;
    uint64_t pages = image->header.pages;
    for (uint64_t page = 0; (page = fl_image_skip_zero(image, page)) < pages; page += RANGE_PAGES) {
        uint64_t frames = range_places(image, page, places + count);
        count += frames;
        detail->ranges += frames > 0;
        detail->range_frames += frames;
        if (frames > detail->range_frames_max)
            detail->range_frames_max = frames;
    }
    detail->frames = unique(places, count);
    add_frames(image, places, detail);
    fl_unmap(places, room ? room : 1);
    return 0;
}

int fl_store_inspect(struct fl_store *store, const char *name, struct fl_image_detail *ret_detail,
                     struct fl_error *ret_error)
{
    struct fl_image *image;
    struct fl_image_detail detail = {.frames = 0};
    int r = fl_image_open(store->reader, name, &image);
    if (r < 0)
        return fl_image_failed(store, name, r, ret_error);
    struct fl_disk_image_footer footer;
    r = fl_image_file_footer(image->fd, &image->header, &footer);
    if (r == 0) {
        fill_info(&image->header, &footer, &detail.info);
        detail.trace = fl_trace_info(store, &image->header);
        r = measure(image, &detail);
    }
    fl_image_unref(image);
    if (r < 0)
        return fl_image_failed(store, name, r, ret_error);
    *ret_detail = detail;
    return 0;
}

// Call it with the names locked: otherwise the removed trace could be that of the next image of
// this name.
static int remove_locked(struct fl_store *store, const char *name, const char *file_name,
                         struct fl_error *ret_error)
{
    int r = unlinkat(store->reader->images_fd, file_name, 0) < 0 ? -errno : 0;
    if (r < 0)
        return r == -ENOENT ? fl_image_failed(store, name, r, ret_error)
                            : fl_fail(ret_error, r, "cannot remove image '%s'", name);
    r = fl_sync_dir(store->reader->images_fd);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot flush the removal of image '%s'", name);
    // A kill before this leaves a trace without an image, which gc removes.
    r = fl_trace_remove(store, name);
    return r < 0 && r != -ENOENT
               ? fl_fail(ret_error, r, "cannot remove the trace of image '%s'", name)
               : 0;
}

int fl_store_rm(struct fl_store *store, const char *name, struct fl_error *ret_error)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    int r = fl_image_file_name(name, file_name);
    if (r < 0)
        return fl_image_failed(store, name, r, ret_error);
    r = fl_store_lock_names(store);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot remove image '%s'", name);
    r = remove_locked(store, name, file_name, ret_error);
    fl_store_unlock_names(store);
    return r;
}
