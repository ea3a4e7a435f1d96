// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "snapshot/remote/parts.h"
#include "snapshot/remote/s3_internal.h"

enum { FILE_MODE = 0640, PART_BYTES = 8 << 20, STEP = 1 << 20 };

// The lock belongs to the file, and by the time that it is held the name may lead to another one,
// or to none: who had it has published or discarded it, and the answer is 1.
static int lock_named(const struct fl_temp *temp)
{
    struct stat held;
    struct stat named;
    if (flock(temp->fd, LOCK_EX) < 0 || fstat(temp->fd, &held) < 0)
        return -errno;
    if (fstatat(temp->dir_fd, temp->name, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 1 : -errno;
    return held.st_ino == named.st_ino && held.st_dev == named.st_dev ? 0 : 1;
}

static int open_temp(struct fl_store *store, enum fl_fetch_kind kind, const char *sha256,
                     struct fl_temp *ret_temp)
{
    struct fl_temp temp = {.dir_fd = store->tmp_fd};
    // Half of the hash: a name has 64 bytes at most.
    snprintf(temp.name, sizeof(temp.name), ".%.32s.fetched%s", sha256,
             kind == FL_FETCH_MAP ? "-map" : "");
    temp.fd = openat(temp.dir_fd, temp.name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (temp.fd < 0)
        return -errno;
    int r = lock_named(&temp);
    if (r == 0)
        *ret_temp = temp;
    else
        fl_cleanup_close(&temp.fd);
    return r;
}

struct fetching {
    struct fl_fetch *fetch;
    const struct fl_remote_file *file;
    int fd;
    EVP_MD_CTX *hash;
};

// What is there of an earlier attempt, up to whole parts. It was written in order, without holes.
static int hash_begun(struct fetching *fetching, uint64_t *ret_bytes)
{
    uint64_t bytes;
    FL_AUTO_FREE void *buf = malloc(STEP);
    int r = buf ? fl_file_size(fetching->fd, &bytes) : -ENOMEM;
    if (r == 0 && bytes > fetching->file->bytes)
        bytes = 0;
    if (r == 0 && bytes != fetching->file->bytes)
        bytes -= bytes % PART_BYTES;
    for (uint64_t at = 0; r == 0 && at < bytes; at += STEP) {
        size_t part = bytes - at < STEP ? (size_t)(bytes - at) : STEP;
        bool (*cancelled)(void) = fetching->fetch->remote->s3->cancelled;
        r = cancelled && cancelled() ? -ECANCELED : fl_pread_full(fetching->fd, buf, part, at);
        if (r == 0 && EVP_DigestUpdate(fetching->hash, buf, part) != 1)
            r = -EIO;
    }
    if (r == 0 && ftruncate(fetching->fd, (off_t)bytes) < 0)
        r = -errno;
    if (r == 0)
        *ret_bytes = bytes;
    return r;
}

static int get_part(void *arg, struct fl_s3_link *link, const struct fl_part *part,
                    struct fl_error *ret_error)
{
    const struct fetching *fetching = arg;
    return fl_s3_get_range(link, fetching->file->key, part->offset, part->bytes,
                           fetching->file->bytes, part->buf, ret_error);
}

static int keep_part(void *arg, const struct fl_part *part, struct fl_error *ret_error)
{
    struct fetching *fetching = arg;
    int r = fl_pwrite_full(fetching->fd, part->buf, part->bytes, part->offset);
    if (r == 0 && EVP_DigestUpdate(fetching->hash, part->buf, part->bytes) != 1)
        r = -EIO;
    if (r < 0)
        return fl_fail(ret_error, r, "cannot write to the store %s", fetching->fetch->store->dir);
    r = fetching->fetch->moved(fetching->fetch->arg, part->bytes);
    return r < 0 ? fl_fail_plain(ret_error, r, "interrupted; the next pull goes on from here") : 0;
}

// A file of one part needs no thread.
static int get_rest(struct fetching *fetching, uint64_t from, struct fl_error *ret_error)
{
    struct fl_remote *remote = fetching->fetch->remote;
    uint64_t end = fetching->file->bytes;
    if (from == end)
        return 0;
    if (end - from <= PART_BYTES) {
        FL_AUTO_FREE char *buf = malloc((size_t)(end - from));
        struct fl_part part = {.offset = from, .bytes = (size_t)(end - from), .buf = buf};
        int r = buf ? get_part(fetching, remote->link, &part, ret_error)
                    : fl_fail(ret_error, -ENOMEM, "cannot fetch a file");
        return r < 0 ? r : keep_part(fetching, &part, ret_error);
    }
    struct fl_parts parts = {
        .s3 = remote->s3,
        .first = from,
        .end = end,
        .part_bytes = PART_BYTES,
        .work = get_part,
        .after = keep_part,
        .arg = fetching,
    };
    return fl_parts_run(&parts, ret_error);
}

static int fetch_once(struct fetching *fetching, bool resume, struct fl_error *ret_error)
{
    unsigned char digest[32];
    char hex[FL_HEX_BYTES];
    uint64_t from = 0;
    if (EVP_DigestInit_ex(fetching->hash, EVP_sha256(), NULL) != 1)
        return fl_fail(ret_error, -EIO, "cannot hash a file");
    int r = resume ? hash_begun(fetching, &from) : ftruncate(fetching->fd, 0) < 0 ? -errno : 0;
    if (r == -ECANCELED)
        return fl_fail_plain(ret_error, r, "interrupted; the next pull goes on from here");
    if (r < 0)
        return fl_fail(ret_error, r, "cannot go on with a file in tmp/ of the store %s",
                       fetching->fetch->store->dir);
    r = get_rest(fetching, from, ret_error);
    if (r < 0)
        return r;
    if (EVP_DigestFinal_ex(fetching->hash, digest, NULL) != 1)
        return fl_fail(ret_error, -EIO, "cannot hash a file");
    fl_hex(digest, sizeof(digest), hex);
    if (strcmp(hex, fetching->file->sha256) != 0)
        return fl_fail_plain(ret_error, -EBADMSG, "%s/%s has other bytes than it should",
                             fl_s3_name(fetching->fetch->remote->s3), fetching->file->key);
    fetching->fetch->resumed += from;
    return 0;
}

int fl_fetch_file(struct fl_fetch *fetch, enum fl_fetch_kind kind,
                  const struct fl_remote_file *file, struct fl_temp *ret_temp,
                  struct fl_error *ret_error)
{
    struct fl_temp temp;
    int r = open_temp(fetch->store, kind, file->sha256, &temp);
    if (r == 1)
        return 1;
    if (r == -EINTR)
        return fl_fail_plain(ret_error, r, "interrupted while another process fetches the file");
    if (r < 0)
        return fl_fail(ret_error, r, "cannot write to the store %s", fetch->store->dir);
    struct fetching fetching = {
        .fetch = fetch, .file = file, .fd = temp.fd, .hash = EVP_MD_CTX_new()};
    r = fetching.hash ? fetch_once(&fetching, true, ret_error)
                      : fl_fail(ret_error, -ENOMEM, "cannot fetch a file");
    if (r == -EBADMSG) // the part that was there may have been wrong, or the network
        r = fetch_once(&fetching, false, ret_error);
    EVP_MD_CTX_free(fetching.hash);
    if (r < 0) {
        if (r != -EBADMSG)
            temp.name[0] = '\0'; // it stays
        fl_temp_discard(&temp);
        return r;
    }
    *ret_temp = temp;
    return 0;
}

int fl_fetch_take(struct fl_temp *temp)
{
    char name[sizeof(temp->name)];
    uint64_t id;
    int r = fl_random_id(&id);
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), ".%016" PRIx64 ".pulled", id);
    if (renameat(temp->dir_fd, temp->name, temp->dir_fd, name) < 0)
        return -errno;
    memcpy(temp->name, name, sizeof(name));
    return 0;
}
