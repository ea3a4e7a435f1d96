// SPDX-License-Identifier: Apache-2.0
//
// What replay makes of the traces of open images. A plan is made by one reader at a time for each
// image; the others are told -EBUSY. When the last user of the image goes its plan goes to the
// cache of plans, and comes back from there when the image is opened again.
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/image/images.h"
#include "engine/image/images_internal.h"
#include "engine/image/store_place.h"

static const char *trace_trouble(int error)
{
    switch (error) {
    case -ESTALE:
        return "it was recorded from other content: the image was replaced since";
    case -EBADMSG:
        return "its file is damaged";
    case -EPROTONOSUPPORT:
        return "this program does not know its version";
    default:
        return strerror(-error);
    }
}

static struct fl_plan *open_plan(struct fl_images *images, const struct fl_image *image)
{
    struct fl_trace *trace = NULL;
    struct fl_plan *plan = NULL;
    struct fl_reader *reader = NULL;
    int error = fl_store_place_get(images->place, &reader);
    if (!error)
        error = fl_trace_open(reader, image, &trace);
    fl_reader_close(reader);
    if (!error)
        error = fl_plan_new(image, trace, &plan);
    if (error && error != -ENOENT)
        fl_log(FL_LOG_WARNING, "event=trace_failed image=%s reason=\"%s\"", fl_image_name(image),
               trace_trouble(error));
    if (!error)
        fl_log(FL_LOG_INFO, "event=trace image=%s pages=%" PRIu64 " recordings=%" PRIu32,
               fl_image_name(image), fl_trace_count(trace), fl_trace_runs(trace));
    fl_trace_unref(trace);
    return plan;
}

// The file of its trace; all zero if there is none.
static struct stat look_at_trace(const struct fl_images *images, const struct fl_image *image)
{
    char path[PATH_MAX];
    struct stat file;
    int length = snprintf(path, sizeof(path), "%s/../traces/%s.trace",
                          fl_store_images_dir(images->place), fl_image_name(image));
    if (length >= (int)sizeof(path) || stat(path, &file) != 0)
        memset(&file, 0, sizeof(file));
    return file;
}

// With the lock held. 1: *ret_plan is what the file says; 0: the caller is to find out, and has
// *ret_plan from the cache perhaps; or -EBUSY.
static int known_plan(struct fl_images *images, struct fl_image_entry *entry,
                      const struct stat *file, struct fl_plan **ret_plan)
{
    *ret_plan = NULL;
    if (entry && entry->planning)
        return -EBUSY;
    if (entry && !entry->plan)
        *ret_plan = fl_plan_cache_take(&images->plans, &entry->file, file);
    if (*ret_plan) {
        entry->planning = true;
        return 0;
    }
    if (entry && !fl_same_file(&entry->trace_file, file)) {
        entry->planning = true;
        return 0;
    }
    *ret_plan = entry && entry->plan ? fl_plan_ref(entry->plan) : NULL;
    return 1;
}

// The one from the cache, if what it needs of the image can be read, or a new one.
static struct fl_plan *find_plan(struct fl_images *images, const struct fl_image *image,
                                 const struct stat *file, struct fl_plan *shelved)
{
    if (shelved && fl_plan_know(shelved, image) == 0)
        return shelved;
    fl_plan_unref(shelved);
    return file->st_ino ? open_plan(images, image) : NULL;
}

int fl_images_plan(struct fl_images *images, const struct fl_image *image,
                   struct fl_plan **ret_plan)
{
    struct stat file = look_at_trace(images, image);
    struct fl_plan *found = NULL;
    pthread_mutex_lock(&images->lock);
    int known = known_plan(images, fl_images_entry(images, image), &file, &found);
    pthread_mutex_unlock(&images->lock);
    if (known == 1)
        *ret_plan = found;
    if (known != 0)
        return known < 0 ? known : 0;
    struct fl_plan *plan = find_plan(images, image, &file, found);
    FL_CRASH_POINT("plan_made");
    pthread_mutex_lock(&images->lock);
    struct fl_image_entry *entry = fl_images_entry(images, image);
    struct fl_plan *before = entry ? entry->plan : NULL;
    if (entry) { // else its last user has gone meanwhile
        entry->trace_file = file;
        entry->plan = plan ? fl_plan_ref(plan) : NULL;
        entry->planning = false;
    }
    pthread_mutex_unlock(&images->lock);
    fl_plan_unref(before);
    *ret_plan = plan;
    return 0;
}
