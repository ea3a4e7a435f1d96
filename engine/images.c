// SPDX-License-Identifier: Apache-2.0
#include "engine/images.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <urcu/list.h>

struct entry {
    struct cds_list_head link;
    struct stat file; // identity of the image file
    struct fl_image *image;
    unsigned users;
};

struct fl_images {
    struct fl_reader *reader;
    pthread_mutex_t lock; // the list and the entries; never held over I/O
    struct cds_list_head open;
};

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

// With the lock held.
static struct fl_image *use(struct fl_images *images, const struct stat *file, const char *name)
{
    struct entry *entry;
    cds_list_for_each_entry(entry, &images->open, link)
    {
        if (same_file(&entry->file, file) && strcmp(fl_image_name(entry->image), name) == 0) {
            entry->users++;
            return fl_image_ref(entry->image);
        }
    }
    return NULL;
}

static struct fl_image *find(struct fl_images *images, const struct stat *file, const char *name)
{
    pthread_mutex_lock(&images->lock);
    struct fl_image *image = use(images, file, name);
    pthread_mutex_unlock(&images->lock);
    return image;
}

// Somebody may have opened the same image meanwhile: theirs is taken, then.
static int add(struct fl_images *images, const struct stat *file, struct fl_image *image,
               struct fl_image **ret_image)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return -ENOMEM;
    pthread_mutex_lock(&images->lock);
    struct fl_image *there = use(images, file, fl_image_name(image));
    if (!there) {
        entry->file = *file;
        entry->image = fl_image_ref(image);
        entry->users = 1;
        cds_list_add(&entry->link, &images->open);
        entry = NULL;
    }
    pthread_mutex_unlock(&images->lock);
    *ret_image = there ? there : fl_image_ref(image);
    free(entry);
    return 0;
}

int fl_images_get(struct fl_images *images, const char *name, struct fl_image **ret_image)
{
    char path[PATH_MAX];
    struct stat file;
    if (!fl_name_valid(name))
        return -EINVAL;
    int length =
        snprintf(path, sizeof(path), "%s/%s.img", fl_reader_images_dir(images->reader), name);
    if (length >= (int)sizeof(path))
        return -ENAMETOOLONG;
    if (stat(path, &file) != 0)
        return -errno;
    *ret_image = find(images, &file, name);
    if (*ret_image)
        return 0;
    struct fl_image *image = NULL;
    int error = fl_image_open(images->reader, name, &image);
    if (error)
        return error;
    error = add(images, &file, image, ret_image);
    fl_image_unref(image);
    return error;
}

void fl_images_put(struct fl_images *images, struct fl_image *image)
{
    struct entry *last = NULL;
    struct entry *entry;
    if (images) {
        pthread_mutex_lock(&images->lock);
        cds_list_for_each_entry(entry, &images->open, link)
        {
            if (entry->image == image) {
                if (--entry->users == 0)
                    last = entry;
                break;
            }
        }
        if (last)
            cds_list_del(&last->link);
        pthread_mutex_unlock(&images->lock);
    }
    fl_image_unref(image);
    if (last) {
        fl_image_unref(last->image);
        free(last);
    }
}

int fl_images_new(struct fl_reader *reader, struct fl_images **ret_images)
{
    struct fl_images *images = calloc(1, sizeof(*images));
    if (!images)
        return -ENOMEM;
    images->reader = reader;
    pthread_mutex_init(&images->lock, NULL);
    CDS_INIT_LIST_HEAD(&images->open);
    *ret_images = images;
    return 0;
}

void fl_images_free(struct fl_images *images)
{
    if (!images)
        return;
    struct entry *entry;
    struct entry *next;
    cds_list_for_each_entry_safe(entry, next, &images->open, link)
    {
        fl_image_unref(entry->image);
        free(entry);
    }
    pthread_mutex_destroy(&images->lock);
    free(images);
}
