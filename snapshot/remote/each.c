// SPDX-License-Identifier: Apache-2.0
//
// Lists the images of a remote store, and removes names.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/catalog.h"
#include "snapshot/remote/parts.h"

// --- all manifests ---

enum { RUN = 8 }; // that one thread reads one after the other

struct entry {
    struct fl_listed listed;
    struct fl_manifest manifest;
};

struct reading {
    struct fl_remote *remote;
    struct entry *entries;
    int (*fn)(void *arg, const struct fl_listed *listed);
    void *arg;
    int result; // of fn
};

// The numbers have a fixed width, so the last of a name in the order of keys is the highest.
static size_t find_current(const struct fl_s3_listing *listing, struct entry *entries)
{
    size_t count = 0;
    for (size_t i = 0; i < listing->count; i++) {
        struct fl_listed listed = {.object = &listing->objects[i]};
        if (!fl_manifest_parse_key(listed.object->key, listed.name, &listed.number))
            continue;
        if (count == 0 || strcmp(entries[count - 1].listed.name, listed.name) != 0)
            count++;
        entries[count - 1].listed = listed;
    }
    return count;
}

static int read_run(void *arg, struct fl_s3_link *link, const struct fl_part *part,
                    struct fl_error *ret_error)
{
    const struct reading *reading = arg;
    struct fl_remote remote = {.s3 = reading->remote->s3, .link = link};
    for (size_t i = 0; i < part->bytes; i++) {
        struct entry *entry = &reading->entries[part->offset + i];
        struct fl_listed *listed = &entry->listed;
        int r = fl_remote_manifest(&remote, listed->name, listed->number, &entry->manifest,
                                   &listed->error);
        if (r == -EBADMSG || r == -EPROTONOSUPPORT || r == -EFBIG) {
            listed->why = r;
        } else if (r < 0) {
            *ret_error = listed->error;
            return r;
        } else {
            listed->manifest = &entry->manifest;
        }
    }
    return 0;
}

static int tell_run(void *arg, const struct fl_part *part, struct fl_error *ret_error)
{
    struct reading *reading = arg;
    (void)ret_error;
    for (size_t i = 0; i < part->bytes && reading->result == 0; i++) {
        struct entry *entry = &reading->entries[part->offset + i];
        reading->result = reading->fn(reading->arg, &entry->listed);
        fl_manifest_free(&entry->manifest);
    }
    return reading->result;
}

static int read_all(struct reading *reading, size_t count, struct fl_error *ret_error)
{
    struct fl_parts parts = {
        .s3 = reading->remote->s3,
        .end = count,
        .part_bytes = RUN,
        .work = read_run,
        .after = tell_run,
        .arg = reading,
    };
    if (count > RUN)
        return fl_parts_run(&parts, ret_error);
    struct fl_part all = {.bytes = count};
    int r = read_run(reading, reading->remote->link, &all, ret_error);
    return r < 0 ? r : tell_run(reading, &all, ret_error);
}

int fl_remote_each_manifest(struct fl_remote *remote,
                            int (*fn)(void *arg, const struct fl_listed *listed), void *arg,
                            struct fl_error *ret_error)
{
    struct fl_s3_listing listing;
    struct reading reading = {.remote = remote, .fn = fn, .arg = arg};
    int r = fl_s3_list(remote->link, FL_IMAGES_PREFIX, &listing, ret_error);
    reading.entries = calloc(listing.count + 1, sizeof(*reading.entries));
    if (r == 0 && !reading.entries)
        r = fl_fail(ret_error, -ENOMEM, "cannot list %s", fl_s3_name(remote->s3));
    if (r == 0)
        r = read_all(&reading, find_current(&listing, reading.entries), ret_error);
    for (size_t i = 0; i < listing.count && reading.entries; i++)
        fl_manifest_free(&reading.entries[i].manifest);
    free(reading.entries);
    fl_s3_listing_free(&listing);
    return r;
}

// --- images ---

struct telling {
    int (*fn)(void *arg, const struct fl_remote_image *image);
    void *arg;
    int bad; // why the first that could not be read could not
    struct fl_error error;
};

static int tell(void *arg, const struct fl_listed *listed)
{
    struct telling *telling = arg;
    const struct fl_manifest *manifest = listed->manifest;
    if (!manifest && telling->bad == 0) {
        telling->bad = listed->why;
        telling->error = listed->error;
    }
    if (!manifest || manifest->removed)
        return 0;
    struct fl_remote_image image = {
        .name = listed->name,
        .content_id = manifest->content_id,
        .bytes = manifest->bytes,
        .created = manifest->created,
        .pushed = listed->object->modified,
        .stored_bytes = manifest->map.bytes + manifest->trace.bytes,
        .packs = manifest->packs_count,
        .has_trace = *manifest->trace.sha256 != '\0',
    };
    for (size_t i = 0; i < manifest->packs_count; i++)
        image.stored_bytes += manifest->packs[i].file.bytes;
    return telling->fn(telling->arg, &image);
}

int fl_remote_each(struct fl_remote *remote,
                   int (*fn)(void *arg, const struct fl_remote_image *image), void *arg,
                   struct fl_error *ret_error)
{
    struct telling telling = {.fn = fn, .arg = arg};
    int r = fl_remote_each_manifest(remote, tell, &telling, ret_error);
    if (r != 0 || telling.bad == 0)
        return r;
    *ret_error = telling.error;
    return telling.bad;
}

int fl_remote_rm(struct fl_remote *remote, const char *name, struct fl_error *ret_error)
{
    enum { RACES_MAX = 16 };
    struct fl_manifest removed = {.removed = true};
    int r = fl_remote_check_server(remote, ret_error);
    for (int race = 0; race < RACES_MAX && r == 0; race++) {
        struct fl_current current;
        r = fl_remote_current(remote, name, &current, ret_error);
        if (r < 0)
            break;
        bool there = current.number > 0 && !current.manifest.removed;
        fl_manifest_free(&current.manifest);
        if (!there)
            return fl_fail_plain(ret_error, -ENOENT, "%s has no image '%s'", fl_s3_name(remote->s3),
                                 name);
        strcpy(removed.name, name);
        r = fl_remote_publish(remote, current.number + 1, &removed, ret_error);
        if (r != -EEXIST)
            return r;
        r = 0; // pushed a moment ago: looks again
    }
    return r < 0
               ? r
               : fl_fail_plain(ret_error, -EBUSY,
                               "the image '%s' is not removed: others push it all the time", name);
}
