// SPDX-License-Identifier: Apache-2.0
#include "snapshot/trace_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/pack_list.h"
#include "snapshot/trace_file.h"

int fl_trace_image(struct fl_store *store, const char *name, struct fl_disk_image_header *ret_image)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    int r = fl_image_file_name(name, file_name);
    if (r < 0)
        return r;
    FL_AUTO_CLOSE int fd =
        openat(store->reader->images_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd < 0 ? -errno : fl_image_file_header(fd, name, ret_image);
}

int fl_trace_check(struct fl_store *store, const struct fl_disk_image_header *image,
                   struct fl_disk_trace_header *ret_header)
{
    struct fl_disk_trace_header header;
    int r = fl_trace_file_header(store->reader->dir_fd, image->name, &header);
    if (r < 0)
        return r;
    if (memcmp(&header.content_id, &image->content_id, sizeof(header.content_id)) != 0)
        return -ESTALE;
    if (header.pages != image->pages)
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

struct fl_trace_info fl_trace_info(struct fl_store *store, const struct fl_disk_image_header *image)
{
    struct fl_disk_trace_header header;
    int r = fl_trace_check(store, image, &header);
    if (r == 0)
        return (struct fl_trace_info){
            .state = FL_TRACE_GOOD, .pages = header.count, .runs = header.runs};
    if (r == -ENOENT)
        return (struct fl_trace_info){.state = FL_TRACE_NONE};
    return (struct fl_trace_info){.state = r == -ESTALE ? FL_TRACE_STALE : FL_TRACE_BAD};
}

int fl_trace_remove(struct fl_store *store, const char *name)
{
    char file_name[FL_TRACE_NAME_BYTES];
    FL_AUTO_CLOSE int dir_fd = -1;
    int r = fl_trace_file_name(name, file_name);
    if (r == 0)
        r = fl_trace_dir_open(store->reader->dir_fd, false, &dir_fd);
    if (r == 0)
        r = fl_trace_dir_lock(dir_fd);
    if (r < 0)
        return r;
    return unlinkat(dir_fd, file_name, 0) < 0 ? -errno : fl_sync_dir(dir_fd);
}

int fl_store_trace_rm(struct fl_store *store, const char *name, struct fl_error *ret_error)
{
    int r = fl_trace_remove(store, name);
    if (r == -ENOENT)
        return fl_fail_plain(ret_error, r, "image '%s' has no trace in the store %s", name,
                             store->dir);
    return r < 0 ? fl_fail(ret_error, r, "cannot remove the trace of image '%s'", name) : 0;
}

// A mean is at most UINT32_MAX: loading has checked the sum.
static struct fl_trace_entry *to_entries(const struct fl_trace_file *file)
{
    uint64_t count = file->header.count;
    struct fl_trace_entry *entries = malloc(count * sizeof(*entries));
    for (uint64_t i = 0; entries && i < count; i++)
        entries[i] = (struct fl_trace_entry){
            .page = file->entries[i].page,
            .ms = (uint32_t)(file->entries[i].ms / file->entries[i].seen),
            .seen = file->entries[i].seen,
        };
    return entries;
}

int fl_store_trace_read(struct fl_store *store, const char *name,
                        struct fl_recording *ret_recording, struct fl_error *ret_error)
{
    struct fl_trace_file file;
    int r = fl_trace_file_load(store->reader->dir_fd, name, &file);
    if (r == -ENOENT)
        return fl_fail_plain(ret_error, r, "there is no trace of an image '%s' in the store %s",
                             name, store->dir);
    if (r < 0)
        return fl_fail_plain(ret_error, r, "the trace of image '%s' cannot be read: %s", name,
                             fl_trace_strerror(r));
    struct fl_trace_entry *entries = to_entries(&file);
    uint64_t count = file.header.count;
    fl_trace_file_free(&file);
    if (!entries)
        return fl_fail(ret_error, -ENOMEM, "the trace of image '%s'", name);
    *ret_recording = (struct fl_recording){.entries = entries, .count = count};
    return 0;
}

void fl_recording_free(struct fl_recording *recording)
{
    free((void *)recording->entries);
    *recording = (struct fl_recording){.entries = NULL};
}

struct listing {
    int (*fn)(void *arg, const char *name);
    void *arg;
};

static int list_file(void *arg, const char *file_name)
{
    const struct listing *listing = arg;
    char name[FL_NAME_MAX + 1];
    if (fl_parse_file_name(file_name, FL_TRACE_SUFFIX, name) < 0)
        return 0;
    return listing->fn(listing->arg, name);
}

int fl_trace_each(struct fl_store *store, int (*fn)(void *arg, const char *name), void *arg)
{
    struct listing listing = {.fn = fn, .arg = arg};
    FL_AUTO_CLOSE int dir_fd = -1;
    int r = fl_trace_dir_open(store->reader->dir_fd, false, &dir_fd);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    return fl_each_file(dir_fd, list_file, &listing);
}

const char *fl_trace_strerror(int error)
{
    if (error == -EBADMSG)
        return "it is damaged (a checksum or a bound is wrong)";
    if (error == -EPROTONOSUPPORT)
        return "its format version is not known";
    if (error == -ESTALE)
        return "it was recorded from other content";
    return strerror(-error);
}
