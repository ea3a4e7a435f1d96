// SPDX-License-Identifier: Apache-2.0
//
// Says why an image cannot be opened, and finds the pack that is to blame.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/pack_file.h"
#include "snapshot/store_dir.h"

const char *fl_frame_strerror(int error)
{
    return error == -EBADMSG           ? "does not match its checksum"
           : error == -EPROTONOSUPPORT ? "has a format version that is not known"
           : error == -ENOENT          ? "is missing"
           : error == -ENODATA         ? "is cut short: its file ends within it"
           : error == -EOWNERDEAD      ? "will never come: the image was not packed to its end"
           : error == -EINPROGRESS     ? "is not packed yet"
                                       : strerror(-error);
}

const char *fl_image_strerror(int error)
{
    return error == -EBADMSG
               ? "it, or a pack that it needs, is missing or does not match its checksum"
           : error == -EPROTONOSUPPORT
               ? "it, or a pack that it needs, has a format version that this program does not know"
           : error == -ENOENT      ? "the store has no such image"
           : error == -EINPROGRESS ? "it is still being packed"
           : error == -EOWNERDEAD  ? "it was not packed to its end"
                                   : strerror(-error);
}

// Finds the first pack that cannot be opened. Returns 0 with its id, or with id 0 if there is none.
static int find_bad_pack(struct fl_store *store, const char *name, uint64_t *ret_id, int *ret_why)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    struct fl_disk_image_header header;
    FL_AUTO_FREE uint64_t *ids = NULL;
    int r = fl_image_file_name(name, file_name);
    if (r < 0)
        return r;
    FL_AUTO_CLOSE int fd =
        openat(store->reader->images_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    r = fd < 0 ? -errno : fl_image_file_header(fd, name, &header);
    if (r == 0)
        r = fl_image_file_packs(fd, &header, &ids);
    *ret_id = 0;
    for (uint32_t i = 0; r == 0 && i < header.packs && *ret_id == 0; i++) {
        struct fl_pack *pack = NULL;
        *ret_why = fl_pack_open(store->reader->registry, ids[i], &pack);
        if (*ret_why == 0) {
            *ret_why = fl_pack_know_all(pack);
            fl_pack_unref(pack);
        }
        if (*ret_why < 0)
            *ret_id = ids[i];
    }
    return r;
}

const char *fl_image_blame(struct fl_store *store, const char *name, int error,
                           struct fl_blame *ret_blame)
{
    uint64_t id = 0;
    int why = 0;
    if (error != -EBADMSG && error != -EPROTONOSUPPORT)
        return fl_image_strerror(error);
    if (find_bad_pack(store, name, &id, &why) < 0 || id == 0)
        return error != -EBADMSG ? fl_image_strerror(error)
                                 : "it is damaged (a checksum or a bound is wrong)";
    snprintf(ret_blame->text, sizeof(ret_blame->text), "pack %016" PRIx64 ", which it needs, %s",
             id, fl_frame_strerror(why));
    return ret_blame->text;
}

int fl_image_failed(struct fl_store *store, const char *name, int error, struct fl_error *ret_error)
{
    struct fl_blame blame;
    if (error == -ENOENT)
        return fl_fail_plain(ret_error, error, "the store %s has no image '%s'", store->dir, name);
    if (error == -EINVAL)
        return fl_fail_plain(ret_error, error, "'%s' cannot name an image", name);
    return fl_fail_plain(ret_error, error, "cannot open image '%s': %s", name,
                         fl_image_blame(store, name, error, &blame));
}
