// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/offer_head.h"
#include "snapshot/offer_left.h"
#include "snapshot/offer_open.h"
#include "snapshot/pack_list.h"
#include "snapshot/store_dir.h"

struct listing {
    int images_fd;
    struct fl_reader *reader;
    struct fl_offer_info *all;
    size_t count;
};

// What cannot be read, as it is being removed or damaged, counts for nothing.
static void look_into(struct fl_reader *reader, const char *file, struct fl_offer_info *info)
{
    struct fl_disk_offer_head head;
    struct fl_offer_table table;
    FL_AUTO_CLOSE int fd =
        openat(reader->images_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fl_offer_head_read(fd, info->name, &head, NULL) < 0)
        return;
    info->bytes = head.bytes;
    info->pages = head.pages;
    if (fl_offer_open_table(reader, &head, &table) < 0)
        return;
    info->packed_pages = fl_offer_table_packed(&table);
    close(table.fd);
}

static bool is_published(const struct listing *listing, const char *name)
{
    char file[FL_IMAGE_NAME_BYTES];
    return fl_image_file_name(name, file) == 0 &&
           faccessat(listing->images_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int add(void *arg, const char *file)
{
    struct listing *listing = arg;
    struct fl_offer_info info = {.name = ""};
    if (fl_parse_file_name(file, FL_OFFER_SUFFIX, info.name) < 0)
        return 0;
    info.left = fl_offer_is_left(listing->images_fd, file);
    look_into(listing->reader, file, &info);
    if (is_published(listing, info.name)) // also while it was looked at
        return 0;
    struct fl_offer_info *more =
        realloc(listing->all, (listing->count + 1) * sizeof(*listing->all));
    if (!more)
        return -ENOMEM;
    listing->all = more;
    listing->all[listing->count++] = info;
    return 0;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct fl_offer_info *)a)->name, ((const struct fl_offer_info *)b)->name);
}

int fl_store_offers(struct fl_store *store, struct fl_offer_info **ret_offers, size_t *ret_count,
                    struct fl_error *ret_error)
{
    struct listing listing = {.images_fd = store->reader->images_fd, .reader = store->reader};
    int r = fl_each_file(listing.images_fd, add, &listing);
    if (r < 0) {
        free(listing.all);
        return fl_fail(ret_error, r, "cannot list the images on offer of the store %s", store->dir);
    }
    if (listing.count > 0)
        qsort(listing.all, listing.count, sizeof(*listing.all), compare);
    *ret_offers = listing.all;
    *ret_count = listing.count;
    return 0;
}
