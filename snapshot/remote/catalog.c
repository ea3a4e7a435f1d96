// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/catalog.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_text.h"

static const char marker[] = "{\"faultline-remote\":1}\n";
enum { NUMBER_DIGITS = 16 };

int fl_remote_open(const char *url, const struct fl_s3_config *config,
                   struct fl_remote **ret_remote, struct fl_error *ret_error)
{
    struct fl_s3_place place;
    int r = fl_s3_parse_url(url, &place, ret_error);
    if (r < 0)
        return r;
    struct fl_remote *remote = calloc(1, sizeof(*remote));
    r = remote ? fl_s3_open(config, &place, &remote->s3, ret_error)
               : fl_fail(ret_error, -ENOMEM, "cannot open %s", url);
    if (r == 0)
        r = fl_s3_connect(remote->s3, &remote->link, ret_error);
    if (r < 0)
        fl_remote_close(remote);
    else
        *ret_remote = remote;
    return r;
}

void fl_remote_close(struct fl_remote *remote)
{
    if (!remote)
        return;
    fl_s3_disconnect(remote->link);
    fl_s3_close(remote->s3);
    free(remote);
}

void fl_manifest_key(const char *name, uint64_t number, char ret_key[FL_MANIFEST_KEY_BYTES])
{
    snprintf(ret_key, FL_MANIFEST_KEY_BYTES, FL_IMAGES_PREFIX "%s/%016" PRIu64, name, number);
}

bool fl_manifest_parse_key(const char *key, char ret_name[FL_NAME_MAX + 1], uint64_t *ret_number)
{
    const char *name = key + strlen(FL_IMAGES_PREFIX);
    if (strncmp(key, FL_IMAGES_PREFIX, strlen(FL_IMAGES_PREFIX)) != 0)
        return false;
    size_t length = strcspn(name, "/");
    const char *number = name + length + 1;
    if (name[length] != '/' || length > FL_NAME_MAX || strlen(number) != NUMBER_DIGITS ||
        strspn(number, "0123456789") != NUMBER_DIGITS)
        return false;
    memcpy(ret_name, name, length);
    ret_name[length] = '\0';
    *ret_number = strtoull(number, NULL, 10);
    return *ret_number > 0 && fl_name_valid(ret_name);
}

int fl_remote_manifest(struct fl_remote *remote, const char *name, uint64_t number,
                       struct fl_manifest *ret_manifest, struct fl_error *ret_error)
{
    char key[FL_MANIFEST_KEY_BYTES];
    char *text = NULL;
    size_t bytes = 0;
    fl_manifest_key(name, number, key);
    int r = fl_s3_get(remote->link, key, FL_MANIFEST_MAX_BYTES, &text, &bytes, ret_error);
    if (r < 0)
        return r;
    r = fl_manifest_parse(text, bytes, name, ret_manifest);
    free(text);
    if (r == -EPROTONOSUPPORT)
        return fl_fail_plain(ret_error, r, "%s/%s was written by a newer program",
                             fl_s3_name(remote->s3), key);
    return r < 0 ? fl_fail_plain(ret_error, r, "%s/%s is not the manifest of an image",
                                 fl_s3_name(remote->s3), key)
                 : 0;
}

int fl_remote_current(struct fl_remote *remote, const char *name, struct fl_current *ret_current,
                      struct fl_error *ret_error)
{
    struct fl_s3_listing listing;
    struct fl_current current = {.number = 0};
    char begin[FL_MANIFEST_KEY_BYTES];
    if (!fl_name_valid(name))
        return fl_fail_plain(ret_error, -EINVAL, "'%s' cannot name an image", name);
    snprintf(begin, sizeof(begin), FL_IMAGES_PREFIX "%s/", name);
    int r = fl_s3_list(remote->link, begin, &listing, ret_error);
    for (size_t i = 0; i < listing.count; i++) {
        char found[FL_NAME_MAX + 1];
        uint64_t number;
        if (!fl_manifest_parse_key(listing.objects[i].key, found, &number) ||
            strcmp(found, name) != 0 || number <= current.number)
            continue;
        current.number = number;
        current.modified = listing.objects[i].modified;
    }
    fl_s3_listing_free(&listing);
    if (r == 0 && current.number > 0)
        r = fl_remote_manifest(remote, name, current.number, &current.manifest, ret_error);
    if (r == 0)
        *ret_current = current;
    return r;
}

int fl_remote_publish(struct fl_remote *remote, uint64_t number, const struct fl_manifest *manifest,
                      struct fl_error *ret_error)
{
    char key[FL_MANIFEST_KEY_BYTES];
    char *text = NULL;
    bool made;
    int r = fl_manifest_print(manifest, &text);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot publish the image '%s'", manifest->name);
    fl_manifest_key(manifest->name, number, key);
    r = fl_s3_put_new(remote->link, key, text, strlen(text), &made, ret_error);
    free(text);
    return r;
}

// Every push writes the marker, on condition that there is none: one request, which a server that
// can be trusted refuses from the second time on. What it overwrites otherwise is the same. Nothing
// is remembered, since a bucket can move to another server.
int fl_remote_check_server(struct fl_remote *remote, struct fl_error *ret_error)
{
    bool made = true;
    for (int i = 0; i < 2 && made; i++) {
        int r =
            fl_s3_put_new(remote->link, FL_REMOTE_MARKER, marker, strlen(marker), &made, ret_error);
        if (r == -EEXIST)
            return fl_fail_plain(ret_error, -EPROTONOSUPPORT,
                                 "%s is a remote store of a version that is not known",
                                 fl_s3_name(remote->s3));
        if (r < 0)
            return r;
    }
    if (!made)
        return 0;
    return fl_fail_plain(ret_error, -ENOTSUP,
                         "the server of %s overwrites objects that it was told to leave "
                         "(If-None-Match: *), so nothing can be published there safely",
                         fl_s3_name(remote->s3));
}
