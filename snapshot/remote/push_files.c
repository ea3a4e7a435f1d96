// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A push relies on objects that others have sent, and gc may be about to
// remove them. So gc condemns an object a day before it removes it, and a push relies on no object
// that is condemned. It reads what is condemned first and looks for objects afterwards: an object
// that it then finds and that is not on the list cannot be removed for a day. An object that it
// sends has a key that was never used before, so that no late removal can hit it.
#include "snapshot/remote/push_files.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/identity.h"
#include "snapshot/io.h"
#include "snapshot/pack_file.h"
#include "snapshot/publish.h"
#include "snapshot/remote/parts.h"
#include "snapshot/remote/s3_internal.h"

enum { ONE_PUT_BYTES = 32 << 20, PART_BYTES = 16 << 20 };

// --- what is there ---

enum { RUN = 16 }; // that one thread looks for one after the other

struct finding {
    const struct fl_condemned *condemned;
    struct fl_push_file *files;
};

static int find_one(struct fl_s3_link *link, const struct fl_condemned *condemned,
                    struct fl_push_file *file, struct fl_error *ret_error)
{
    struct fl_s3_listing listing;
    char begin[FL_DATA_KEY_BYTES];
    snprintf(begin, sizeof(begin), FL_DATA_PREFIX "%s.", file->file.sha256);
    int r = fl_s3_list(link, begin, &listing, ret_error);
    file->file.key[0] = '\0';
    for (size_t i = 0; i < listing.count && r == 0; i++) {
        const struct fl_s3_object *object = &listing.objects[i];
        if (fl_data_key_valid(object->key) && object->bytes == file->file.bytes &&
            !fl_condemned_has(condemned, object->key))
            memcpy(file->file.key, object->key, sizeof(file->file.key));
    }
    fl_s3_listing_free(&listing);
    return r;
}

static int find_run(void *arg, struct fl_s3_link *link, const struct fl_part *part,
                    struct fl_error *ret_error)
{
    const struct finding *finding = arg;
    int r = 0;
    for (size_t i = 0; i < part->bytes && r == 0; i++) {
        struct fl_push_file *file = &finding->files[part->offset + i];
        if (file->fd >= 0)
            r = find_one(link, finding->condemned, file, ret_error);
    }
    return r;
}

int fl_push_find(struct fl_remote *remote, struct fl_push_file *files, size_t count,
                 struct fl_since *ret_since, struct fl_error *ret_error)
{
    struct fl_condemned condemned;
    struct finding finding = {.condemned = &condemned, .files = files};
    struct fl_parts parts = {
        .s3 = remote->s3, .end = count, .part_bytes = RUN, .work = find_run, .arg = &finding};
    ret_since->ms = fl_s3_now_ms();
    int r = fl_condemned_read(remote, &condemned, &ret_since->server, ret_error);
    if (r < 0)
        return r;
    r = count > RUN
            ? fl_parts_run(&parts, ret_error)
            : find_run(&finding, remote->link, &(struct fl_part){.bytes = count}, ret_error);
    fl_condemned_free(&condemned);
    return r;
}

// --- sending ---

struct sending {
    struct fl_remote *remote;
    struct fl_push_file *file;
    const char *key;
    const char *upload;
    char (*etags)[FL_S3_ETAG_BYTES];
    EVP_MD_CTX *hash;
    int (*moved)(void *arg, uint64_t bytes);
    void *arg;
};

static int changed(const struct fl_push_file *file, struct fl_error *ret_error)
{
    return fl_fail_plain(ret_error, -EBADMSG,
                         "a file of the store (SHA-256 %s) has other bytes now: is the disk sound?",
                         file->file.sha256);
}

static int read_part(void *arg, const struct fl_part *part, struct fl_error *ret_error)
{
    struct sending *sending = arg;
    int r = fl_pread_full(sending->file->fd, part->buf, part->bytes, part->offset);
    if (r == 0 && EVP_DigestUpdate(sending->hash, part->buf, part->bytes) != 1)
        r = -EIO;
    return r < 0 ? fl_fail(ret_error, r, "cannot read a file of the store") : 0;
}

static int send_part(void *arg, struct fl_s3_link *link, const struct fl_part *part,
                     struct fl_error *ret_error)
{
    struct sending *sending = arg;
    return fl_s3_upload_part(link, sending->key, sending->upload, (unsigned)part->number + 1,
                             part->buf, part->bytes, sending->etags[part->number], ret_error);
}

static int part_sent(void *arg, const struct fl_part *part, struct fl_error *ret_error)
{
    struct sending *sending = arg;
    int r = sending->moved(sending->arg, part->bytes);
    return r < 0
               ? fl_fail_plain(ret_error, r, "interrupted; what was sent is used by the next push")
               : 0;
}

static bool hash_is(EVP_MD_CTX *hash, const char *hex)
{
    unsigned char digest[32];
    char now[FL_HEX_BYTES];
    if (EVP_DigestFinal_ex(hash, digest, NULL) != 1)
        return false;
    fl_hex(digest, sizeof(digest), now);
    return strcmp(now, hex) == 0;
}

static int send_parts(struct sending *sending, uint64_t part_bytes, struct fl_error *ret_error)
{
    const struct fl_remote_file *file = &sending->file->file;
    struct fl_parts parts = {
        .s3 = sending->remote->s3,
        .end = file->bytes,
        .part_bytes = (size_t)part_bytes,
        .before = read_part,
        .work = send_part,
        .after = part_sent,
        .arg = sending,
    };
    int r = fl_parts_run(&parts, ret_error);
    if (r == 0 && !hash_is(sending->hash, file->sha256))
        r = changed(sending->file, ret_error);
    if (r == 0)
        r = fl_s3_upload_complete(sending->remote->link, sending->key, sending->upload,
                                  (const char(*)[FL_S3_ETAG_BYTES])sending->etags,
                                  (unsigned)((file->bytes - 1) / part_bytes + 1), file->bytes,
                                  ret_error);
    return r;
}

static int send_large(struct sending *sending, struct fl_error *ret_error)
{
    char upload[FL_S3_UPLOAD_ID_BYTES];
    uint64_t bytes = sending->file->file.bytes;
    uint64_t part_bytes = (bytes - 1) / FL_S3_PARTS_MAX + 1;
    part_bytes = part_bytes > PART_BYTES ? part_bytes : PART_BYTES;
    sending->upload = upload;
    sending->etags = calloc((bytes - 1) / part_bytes + 1, sizeof(*sending->etags));
    sending->hash = EVP_MD_CTX_new();
    int r =
        sending->etags && sending->hash && EVP_DigestInit_ex(sending->hash, EVP_sha256(), NULL) == 1
            ? fl_s3_upload_begin(sending->remote->link, sending->key, upload, ret_error)
            : fl_fail(ret_error, -ENOMEM, "cannot send a file");
    if (r == 0) {
        r = send_parts(sending, part_bytes, ret_error);
        if (r < 0)
            fl_s3_upload_abort(sending->remote->link, sending->key, upload);
    }
    EVP_MD_CTX_free(sending->hash);
    free(sending->etags);
    return r;
}

static int send_small(struct sending *sending, struct fl_error *ret_error)
{
    const struct fl_remote_file *file = &sending->file->file;
    char now[FL_HEX_BYTES];
    FL_AUTO_FREE void *buf = malloc((size_t)file->bytes);
    int r = buf ? fl_pread_full(sending->file->fd, buf, (size_t)file->bytes, 0) : -ENOMEM;
    if (r == 0)
        r = fl_sha256_hex(buf, (size_t)file->bytes, now);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot read a file of the store");
    if (strcmp(now, file->sha256) != 0)
        return changed(sending->file, ret_error);
    r = fl_s3_put(sending->remote->link, sending->key, buf, (size_t)file->bytes, ret_error);
    if (r == 0 && sending->moved(sending->arg, file->bytes) < 0)
        r = fl_fail_plain(ret_error, -ECANCELED,
                          "interrupted; what was sent is used by the next push");
    return r;
}

int fl_push_send(struct fl_remote *remote, struct fl_push_file *file,
                 int (*moved)(void *arg, uint64_t bytes), void *arg, struct fl_error *ret_error)
{
    char key[FL_DATA_KEY_BYTES];
    uint64_t number;
    struct sending sending = {
        .remote = remote, .file = file, .key = key, .moved = moved, .arg = arg};
    int r = fl_random_id(&number);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot send a file");
    snprintf(key, sizeof(key), FL_DATA_PREFIX "%s.%016" PRIx64, file->file.sha256, number);
    r = file->file.bytes <= ONE_PUT_BYTES ? send_small(&sending, ret_error)
                                          : send_large(&sending, ret_error);
    if (r < 0)
        return r;
    memcpy(file->file.key, key, sizeof(key));
    file->sent = true;
    return 0;
}

// --- what is not to be sent ---

static int check_frame(const struct fl_pack *pack, uint32_t frame, char *buf,
                       struct fl_identity *identities)
{
    uint32_t pages = fl_pack_frame_pages(pack, frame);
    struct fl_identity now;
    int r = pages > 0 ? fl_pack_read_frame(pack, frame, buf) : -EBADMSG;
    if (r == 0)
        r = fl_pack_read_identities(pack, frame, 0, pages, identities);
    for (uint32_t i = 0; i < pages && r == 0; i++) {
        if (EVP_Digest(buf + (size_t)i * FL_PAGE_SIZE, FL_PAGE_SIZE, now.bytes, NULL, EVP_sha256(),
                       NULL) != 1)
            r = -EIO;
        else if (memcmp(&now, &identities[i], sizeof(now)) != 0)
            r = -EBADMSG;
    }
    return r;
}

int fl_push_check_pack(struct fl_store *store, uint64_t pack_id, bool (*cancelled)(void),
                       struct fl_error *ret_error)
{
    struct fl_pack *pack = NULL;
    FL_AUTO_FREE char *buf = malloc((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    FL_AUTO_FREE struct fl_identity *identities = calloc(FL_FRAME_PAGES_MAX, sizeof(*identities));
    int r = buf && identities ? fl_pack_open(store->reader->registry, pack_id, &pack) : -ENOMEM;
    if (r == 0)
        r = fl_pack_know_all(pack);
    if (r == 0)
        r = fl_pack_check_identities(pack);
    for (uint32_t frame = 0; r == 0 && frame < fl_pack_frames(pack); frame++)
        r = cancelled && cancelled() ? -ECANCELED : check_frame(pack, frame, buf, identities);
    if (pack)
        fl_pack_unref(pack);
    if (r == -ECANCELED)
        return fl_fail_plain(ret_error, r, "interrupted");
    return r < 0 ? fl_fail(ret_error, r,
                           "the pack %016" PRIx64
                           " is damaged, so it is not pushed (faultline verify says more)",
                           pack_id)
                 : 0;
}
