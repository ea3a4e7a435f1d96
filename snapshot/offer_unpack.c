// SPDX-License-Identifier: Apache-2.0
#include "snapshot/offer_unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "snapshot/offer_head.h"
#include "snapshot/offer_open.h"
#include "snapshot/output.h"

struct found {
    struct fl_offer_table table;
    struct fl_disk_offer_companion *list;
    uint32_t count;
};

static int find(struct fl_store *store, const char *name, struct found *ret_found)
{
    char file[FL_OFFER_NAME_BYTES];
    struct fl_disk_offer_head head;
    int r = fl_offer_file_name(name, file);
    if (r < 0)
        return r;
    FL_AUTO_CLOSE int fd =
        openat(store->reader->images_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    r = fd < 0 ? -errno : fl_offer_head_read(fd, name, &head, NULL);
    if (r == 0)
        r = fl_offer_open_table(store->reader, &head, &ret_found->table);
    if (r < 0)
        return r;
    r = fl_offer_table_companions(&ret_found->table, &ret_found->list, &ret_found->count);
    if (r < 0)
        close(ret_found->table.fd);
    return r;
}

static const struct fl_disk_offer_companion *look_up(const struct found *found, const char *name)
{
    for (uint32_t i = 0; i < found->count; i++) {
        if (strcmp(found->list[i].name, name) == 0)
            return &found->list[i];
    }
    return NULL;
}

static int copy(const struct found *found, const struct fl_disk_offer_companion *companion, int to,
                bool *ret_output_failed)
{
    FL_AUTO_FREE void *bytes = malloc(companion->bytes ? companion->bytes : 1);
    if (!bytes)
        return -ENOMEM;
    int r = fl_pread_full(found->table.fd, bytes, companion->bytes, companion->offset);
    if (r == 0 && fl_checksum(bytes, companion->bytes) != companion->checksum)
        r = -EBADMSG;
    if (r < 0)
        return r;
    r = fl_pwrite_full(to, bytes, companion->bytes, 0);
    *ret_output_failed = r < 0;
    return r;
}

static int write_one(const struct found *found, const struct fl_unpack_options *options,
                     const struct fl_companion_file *wish, struct fl_error *ret_error)
{
    struct fl_output output;
    bool failed = true;
    int r = fl_output_open(wish->path, options->force, &output);
    if (r == 0) {
        failed = false;
        r = copy(found, look_up(found, wish->name), output.temp.fd, &failed);
    }
    if (r == 0) {
        r = fl_output_publish(&output);
        failed = r < 0;
    }
    fl_output_close(&output);
    if (r < 0 && failed)
        return fl_fail_plain(ret_error, r, "cannot write %s: %s", wish->path,
                             fl_output_strerror(r));
    return r < 0 ? fl_fail(ret_error, r, "cannot read companion '%s' of image '%s'", wish->name,
                           options->name)
                 : 0;
}

static int write_all(const struct found *found, const struct fl_unpack_options *options,
                     struct fl_error *ret_error)
{
    if (options->path && fl_offer_table_alive(found->table.fd))
        return fl_fail_plain(ret_error, -EINPROGRESS,
                             "image '%s' is still being packed: its memory can be unpacked when it "
                             "is finished",
                             options->name);
    if (options->path)
        return fl_fail_plain(ret_error, -EOWNERDEAD,
                             "image '%s' was not packed to its end, and its memory is lost",
                             options->name);
    for (size_t i = 0; i < options->with_count; i++) {
        if (!look_up(found, options->with[i].name))
            return fl_fail_plain(ret_error, -ENOENT, "image '%s' has no companion '%s'",
                                 options->name, options->with[i].name);
    }
    int r = 0;
    for (size_t i = 0; r == 0 && i < options->with_count; i++)
        r = write_one(found, options, &options->with[i], ret_error);
    return r;
}

bool fl_offer_unpack(struct fl_store *store, const struct fl_unpack_options *options,
                     struct fl_unpack_result *ret_result, struct fl_error *ret_error, int *ret)
{
    struct found found;
    double start = fl_seconds_wall();
    if (find(store, options->name, &found) < 0)
        return false;
    *ret = write_all(&found, options, ret_error);
    if (*ret == 0)
        *ret_result = (struct fl_unpack_result){.seconds = fl_seconds_wall() - start};
    close(found.table.fd);
    free(found.list);
    return true;
}
