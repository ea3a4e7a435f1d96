// SPDX-License-Identifier: Apache-2.0
//
// Lists the images of a remote store, and removes names.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/catalog.h"

static int tell(struct fl_remote *remote, const struct fl_s3_object *object, const char *name,
                uint64_t number, int (*fn)(void *arg, const struct fl_remote_image *image),
                void *arg, struct fl_error *ret_error)
{
    struct fl_manifest manifest;
    int r = fl_remote_manifest(remote, name, number, &manifest, ret_error);
    if (r < 0)
        return r;
    struct fl_remote_image image = {
        .name = name,
        .content_id = manifest.content_id,
        .bytes = manifest.bytes,
        .created = manifest.created,
        .pushed = object->modified,
        .stored_bytes = manifest.map.bytes + manifest.trace.bytes,
        .packs = manifest.packs_count,
        .has_trace = *manifest.trace.sha256 != '\0',
    };
    for (size_t i = 0; i < manifest.packs_count; i++)
        image.stored_bytes += manifest.packs[i].file.bytes;
    r = manifest.removed ? 0 : fn(arg, &image);
    fl_manifest_free(&manifest);
    return r;
}

// The numbers have a fixed width, so the last of a name in the order of keys is the highest.
int fl_remote_each(struct fl_remote *remote,
                   int (*fn)(void *arg, const struct fl_remote_image *image), void *arg,
                   struct fl_error *ret_error)
{
    struct fl_s3_listing listing;
    int r = fl_s3_list(remote->link, FL_IMAGES_PREFIX, &listing, ret_error);
    for (size_t i = 0; i < listing.count && r == 0; i++) {
        char name[FL_NAME_MAX + 1];
        char next[FL_NAME_MAX + 1];
        uint64_t number;
        uint64_t next_number;
        if (!fl_manifest_parse_key(listing.objects[i].key, name, &number))
            continue;
        if (i + 1 < listing.count &&
            fl_manifest_parse_key(listing.objects[i + 1].key, next, &next_number) &&
            strcmp(name, next) == 0)
            continue;
        r = tell(remote, &listing.objects[i], name, number, fn, arg, ret_error);
    }
    fl_s3_listing_free(&listing);
    return r;
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
            break;
        r = 0; // pushed a moment ago: looks again
    }
    return r;
}
