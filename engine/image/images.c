// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. An entry is one open image: the file that it was opened from, and how many
// use it. A user is a VM, a template, or one of them that is still being made; each has a reference
// to the image, and gives both up by fl_images_put(). The last user takes the entry out of the list
// and drops the keeper's record; the image itself is freed with its last reference, which may be
// later.
//
// Readers add entries and users, as only they may block on storage; the control thread adds users
// of an image that is in use, and takes them away, so an entry that the control thread has found
// stays while it does not put. The lock covers the list, the entries and the cache of plans, and is
// never held over I/O; `record` alone is the control thread's, but when the entry is new.
#include "engine/image/images.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/crash_point.h"
#include "engine/base/image_name.h"
#include "engine/base/log.h"
#include "engine/image/images_internal.h"
#include "engine/image/store_place.h"
#include "engine/link/keeper_link.h"

static_assert(FL_IMAGE_NAME_BYTES > FL_NAME_MAX, "the name of every image fits");

static void free_entry(struct fl_image_entry *entry)
{
    fl_image_unref(entry->image);
    fl_plan_unref(entry->plan);
    free(entry);
}

const char *fl_images_path(const struct fl_images *images, const char *name, char *buf, size_t size)
{
    if (images && fl_name_valid(name))
        snprintf(buf, size, "%s/%s.img", fl_store_images_dir(images->place), name);
    else
        snprintf(buf, size, "-");
    return buf;
}

// With the lock held.
static struct fl_image *use_entry(struct fl_images *images, const struct stat *file,
                                  const char *name)
{
    struct fl_image_entry *entry;
    cds_list_for_each_entry(entry, &images->open, link)
    {
        if (fl_same_file(&entry->file, file) && strcmp(fl_image_name(entry->image), name) == 0) {
            entry->users++;
            return fl_image_ref(entry->image);
        }
    }
    return NULL;
}

static struct fl_image *find_open(struct fl_images *images, const struct stat *file,
                                  const char *name)
{
    pthread_mutex_lock(&images->lock);
    struct fl_image *image = use_entry(images, file, name);
    pthread_mutex_unlock(&images->lock);
    return image;
}

// Another reader may have opened the same image meanwhile: that one is taken, then.
static int add_entry(struct fl_images *images, const struct stat *file, uint64_t record,
                     struct fl_image *image, struct fl_image **ret_image)
{
    struct fl_image_entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return -ENOMEM;
    pthread_mutex_lock(&images->lock);
    struct fl_image *there = record ? NULL : use_entry(images, file, fl_image_name(image));
    if (!there) {
        entry->file = *file;
        entry->image = fl_image_ref(image);
        entry->users = 1;
        entry->record = record;
        cds_list_add(&entry->link, &images->open);
        entry = NULL;
    }
    pthread_mutex_unlock(&images->lock);
    *ret_image = there ? there : fl_image_ref(image);
    free(entry);
    return 0;
}

static int stat_file(struct fl_images *images, const char *name, const char *suffix,
                     struct stat *ret_file)
{
    char path[PATH_MAX];
    const char *dir = fl_store_images_dir(images->place);
    if (snprintf(path, sizeof(path), "%s/%s%s", dir, name, suffix) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    return stat(path, ret_file) != 0 ? -errno : 0;
}

// Its own file; while it is still packed, that of the offer.
static int stat_image(struct fl_images *images, const char *name, struct stat *ret_file,
                      bool *ret_offered)
{
    int error = stat_file(images, name, ".img", ret_file);
    *ret_offered = error == -ENOENT && stat_file(images, name, ".live", ret_file) == 0;
    return *ret_offered ? 0 : error;
}

static int get_image(struct fl_images *images, struct fl_reader *reader, const char *name,
                     struct fl_image **ret_image)
{
    struct fl_image *image = NULL;
    struct stat file;
    bool offered = false;
    if (!fl_name_valid(name))
        return -EINVAL;
    for (;;) {
        int error = stat_image(images, name, &file, &offered);
        if (error)
            return error;
        *ret_image = find_open(images, &file, name);
        if (*ret_image)
            return 0;
        error = fl_image_open_lazy(reader, name, &image);
        if (error)
            return error;
        if (!offered || fl_image_is_offered(image))
            break;
        fl_image_unref(image); // it was published in between: that is another file
    }
    int error = add_entry(images, &file, 0, image, ret_image);
    fl_image_unref(image);
    return error;
}

int fl_images_get(struct fl_images *images, const char *name, struct fl_image **ret_image)
{
    struct fl_reader *reader = NULL;
    int error = fl_store_place_get(images->place, &reader);
    if (!error)
        error = get_image(images, reader, name, ret_image);
    fl_reader_close(reader);
    return error;
}

static bool look_at_open(struct fl_images *images, const char *name, struct fl_image_look *look)
{
    const struct fl_image_entry *entry;
    bool found = false;
    pthread_mutex_lock(&images->lock);
    cds_list_for_each_entry(entry, &images->open, link)
    {
        found = fl_same_file(&entry->file, &look->file) &&
                strcmp(fl_image_name(entry->image), name) == 0;
        if (!found)
            continue;
        look->bytes = fl_image_bytes(entry->image);
        break;
    }
    pthread_mutex_unlock(&images->lock);
    return found;
}

static int look_at(struct fl_images *images, struct fl_reader *reader, const char *name,
                   struct fl_image_look *ret_look)
{
    struct fl_image *image = NULL;
    bool offered = false;
    int fd = -1;
    int error = fl_name_valid(name) ? stat_image(images, name, &ret_look->file, &offered) : -EINVAL;
    if (error || look_at_open(images, name, ret_look))
        return error;
    error = fl_image_open_lazy(reader, name, &image);
    if (error)
        return error;
    ret_look->bytes = fl_image_bytes(image);
    fl_image_files(image, &fd, 1);
    error = fstat(fd, &ret_look->file) == 0 ? 0 : -errno; // another may have come meanwhile
    fl_image_unref(image);
    return error;
}

int fl_images_look(struct fl_images *images, const char *name, struct fl_image_look *ret_look)
{
    struct fl_reader *reader = NULL;
    int error = fl_store_place_get(images->place, &reader);
    if (!error)
        error = look_at(images, reader, name, ret_look);
    fl_reader_close(reader);
    return error;
}

// The image takes the descriptors that it is opened from: it gets some of its own.
static int duplicate_fds(const int *fds, uint32_t count, int *ret_fds)
{
    for (uint32_t i = 0; i < count; i++) {
        ret_fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (ret_fds[i] < 0) {
            int error = -errno;
            while (i > 0)
                close(ret_fds[--i]);
            return error;
        }
    }
    return 0;
}

int fl_images_get_files(struct fl_images *images, uint64_t id, const int *fds, uint32_t count,
                        struct fl_image **ret_image)
{
    struct stat file;
    struct fl_image *image = NULL;
    int *own = fds && count > 0 ? malloc(count * sizeof(*own)) : NULL;
    if (!own)
        return fds && count > 0 ? -ENOMEM : -EINVAL;
    int error = fstat(fds[0], &file) == 0 ? duplicate_fds(fds, count, own) : -errno;
    if (!error)
        error = fl_image_open_files(own, count, &image);
    free(own);
    if (error)
        return error;
    FL_CRASH_POINT("image_inherited");
    error = add_entry(images, &file, id, image, ret_image);
    fl_image_unref(image);
    return error;
}

struct fl_image_entry *fl_images_entry(struct fl_images *images, const struct fl_image *image)
{
    struct fl_image_entry *entry;
    cds_list_for_each_entry(entry, &images->open, link)
    {
        if (entry->image == image)
            return entry;
    }
    return NULL;
}

struct fl_image *fl_images_use(struct fl_images *images, struct fl_image *image)
{
    pthread_mutex_lock(&images->lock);
    fl_images_entry(images, image)->users++;
    pthread_mutex_unlock(&images->lock);
    return fl_image_ref(image);
}

bool fl_images_is_current(struct fl_images *images, const struct fl_image *image)
{
    char path[PATH_MAX];
    struct stat file;
    pthread_mutex_lock(&images->lock);
    const struct fl_image_entry *entry = fl_images_entry(images, image);
    pthread_mutex_unlock(&images->lock);
    int length = snprintf(path, sizeof(path), "%s/%s.img", fl_store_images_dir(images->place),
                          fl_image_name(image));
    return entry && length < (int)sizeof(path) && stat(path, &file) == 0 &&
           fl_same_file(&entry->file, &file);
}

// One that is on offer and was not seen to be published, and a reference.
static struct fl_image *find_unsettled(struct fl_images *images, const struct fl_image *after)
{
    struct fl_image *found = NULL;
    struct fl_image_entry *entry;
    bool behind = !after;
    pthread_mutex_lock(&images->lock);
    cds_list_for_each_entry(entry, &images->open, link)
    {
        if (behind && fl_image_is_offered(entry->image) && !fl_image_content_id(entry->image)) {
            found = fl_image_ref(entry->image);
            break;
        }
        behind = behind || entry->image == after;
    }
    pthread_mutex_unlock(&images->lock);
    return found;
}

// One that went meanwhile ends the round: there is another one soon.
void fl_images_settle(struct fl_images *images)
{
    struct fl_image *image = find_unsettled(images, NULL);
    while (image) {
        if (fl_image_settle(image) == 0)
            fl_log(FL_LOG_INFO, "event=image_published image=%s", fl_image_name(image));
        struct fl_image *next = find_unsettled(images, image);
        fl_image_unref(image);
        image = next;
    }
}

uint64_t fl_images_keep(struct fl_images *images, struct fl_image *image)
{
    if (!images)
        return 0;
    pthread_mutex_lock(&images->lock);
    struct fl_image_entry *entry = fl_images_entry(images, image);
    pthread_mutex_unlock(&images->lock);
    if (!entry)
        return 0;
    if (!entry->record) {
        entry->record = fl_keeper_link_new_id(images->keeper_link);
        fl_keeper_link_put_image(images->keeper_link, entry->record, image);
    }
    return entry->record;
}

void fl_images_keep_all(struct fl_images *images)
{
    struct fl_image_entry *entry;
    if (!images)
        return;
    pthread_mutex_lock(&images->lock);
    cds_list_for_each_entry(entry, &images->open, link)
    {
        if (entry->record)
            fl_keeper_link_put_image(images->keeper_link, entry->record, entry->image);
    }
    pthread_mutex_unlock(&images->lock);
}

// --- the end ---

void fl_images_put(struct fl_images *images, struct fl_image *image)
{
    struct fl_image_entry *last = NULL;
    if (images) {
        pthread_mutex_lock(&images->lock);
        struct fl_image_entry *entry = fl_images_entry(images, image);
        if (entry && --entry->users == 0) {
            last = entry;
            cds_list_del(&last->link);
            if (last->plan)
                fl_plan_cache_put(&images->plans, &last->file, &last->trace_file, last->plan);
            last->plan = NULL;
        }
        pthread_mutex_unlock(&images->lock);
    }
    FL_CRASH_POINT("image_put");
    fl_image_unref(image);
    if (last) {
        if (last->record)
            fl_keeper_link_drop(images->keeper_link, FL_RECORD_IMAGE, last->record);
        free_entry(last);
    }
}

int fl_images_new(struct fl_store_place *place, struct fl_keeper_link *keeper_link,
                  struct fl_images **ret_images)
{
    struct fl_images *images = calloc(1, sizeof(*images));
    if (!images)
        return -ENOMEM;
    images->place = place;
    images->keeper_link = keeper_link;
    pthread_mutex_init(&images->lock, NULL);
    CDS_INIT_LIST_HEAD(&images->open);
    fl_plan_cache_init(&images->plans);
    *ret_images = images;
    return 0;
}

void fl_images_free(struct fl_images *images)
{
    if (!images)
        return;
    struct fl_image_entry *entry;
    struct fl_image_entry *next;
    cds_list_for_each_entry_safe(entry, next, &images->open, link)
    {
        free_entry(entry);
    }
    fl_plan_cache_fini(&images->plans);
    pthread_mutex_destroy(&images->lock);
    free(images);
}
