// SPDX-License-Identifier: Apache-2.0
//
// A client of S3 and of servers that are like it: objects below one prefix of one bucket.
//
// Threads: a struct fl_s3 is for all threads; a struct fl_s3_link, which is a connection, for one
// at a time. There is no other state.
//
// Every function returns 0 or negative errno, and with an error a sentence without secrets.
// -ENOENT: there is no such object or bucket; -EACCES: the server refuses; -ETIMEDOUT: it did not
// answer as it should for `retry_for_ms`; -ECANCELED; -EPROTO: its answer is wrong, whatever its
// status says; -EIO: it says no.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "snapshot/error.h"
#include "snapshot/remote/s3_credentials.h"
#include "snapshot/remote/s3_url.h"

struct fl_s3;
struct fl_s3_link;

struct fl_s3_config {
    const char *endpoint; // NULL: $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, else AWS
    const char *region;   // NULL: $AWS_REGION, $AWS_DEFAULT_REGION, else us-east-1
    const char *ca_file;  // NULL: $AWS_CA_BUNDLE, else the system's
    enum fl_s3_style style;
    struct fl_s3_source source; // of credentials
    uint64_t timeout_ms;        // an attempt without progress for so long is given up
    uint64_t retry_for_ms;      // no new attempt after so long
    bool (*cancelled)(void);    // NULL, or asked often, from any thread
};

int fl_s3_open(const struct fl_s3_config *config, const struct fl_s3_place *place,
               struct fl_s3 **ret_s3, struct fl_error *ret_error);
void fl_s3_close(struct fl_s3 *s3); // all its links are closed; NULL is a no-op
// A link that was given back, with its connections, or a new one.
int fl_s3_connect(struct fl_s3 *s3, struct fl_s3_link **ret_link, struct fl_error *ret_error);
void fl_s3_disconnect(struct fl_s3_link *link); // NULL is a no-op

// Reads `bytes` bytes of an object of `total` bytes from `offset` on. It must be within the object.
// What came is as long as it should be and is from where it should be; whether it is right only a
// checksum can tell.
int fl_s3_get_range(struct fl_s3_link *link, const char *key, uint64_t offset, size_t bytes,
                    uint64_t total, void *buf, struct fl_error *ret_error);
// Reads an object of at most max bytes. *ret_bytes is to be freed, and has a NUL behind it.
// -EFBIG: it is larger.
int fl_s3_get(struct fl_s3_link *link, const char *key, size_t max, char **ret_bytes,
              size_t *ret_count, struct fl_error *ret_error);
// Writes an object. An existing one of this key is replaced, so the key must say what it has.
int fl_s3_put(struct fl_s3_link *link, const char *key, const void *bytes, size_t count,
              struct fl_error *ret_error);
// Writes an object if there is none of this key (If-None-Match: *). -EEXIST: there is one with
// other bytes. One with the same bytes is success, since the answer to an earlier attempt may have
// been lost. *ret_made says whether the server said that it made one.
int fl_s3_put_new(struct fl_s3_link *link, const char *key, const void *bytes, size_t count,
                  bool *ret_made, struct fl_error *ret_error);
// Success if there is none.
int fl_s3_delete(struct fl_s3_link *link, const char *key, struct fl_error *ret_error);

struct fl_s3_object {
    char *key; // below the prefix
    uint64_t bytes;
    time_t modified; // by the server's clock
};

struct fl_s3_listing {
    struct fl_s3_object *objects; // sorted by key
    size_t count;
    time_t now; // the server's clock when it answered; 0: it did not say
};

// Lists all objects whose key begins so. Keys that are none of ours are in it, too. Release it with
// fl_s3_listing_free, also after an error.
int fl_s3_list(struct fl_s3_link *link, const char *begin, struct fl_s3_listing *ret_listing,
               struct fl_error *ret_error);
void fl_s3_listing_free(struct fl_s3_listing *listing);

// A large object in parts, each but the last of FL_S3_PART_MIN bytes or more. It appears when it is
// completed, and not at all if it is aborted.
#define FL_S3_PART_MIN ((size_t)5 << 20)
#define FL_S3_PARTS_MAX 10000u
enum { FL_S3_UPLOAD_ID_BYTES = 1024, FL_S3_ETAG_BYTES = 160 };
int fl_s3_upload_begin(struct fl_s3_link *link, const char *key, char ret_id[FL_S3_UPLOAD_ID_BYTES],
                       struct fl_error *ret_error);
// part: from 1 on. Any link may send any part.
int fl_s3_upload_part(struct fl_s3_link *link, const char *key, const char *id, unsigned part,
                      const void *bytes, size_t count, char ret_etag[FL_S3_ETAG_BYTES],
                      struct fl_error *ret_error);
// total: the object's size. It is looked at if the answer to an earlier attempt was lost.
int fl_s3_upload_complete(struct fl_s3_link *link, const char *key, const char *id,
                          const char (*etags)[FL_S3_ETAG_BYTES], unsigned parts, uint64_t total,
                          struct fl_error *ret_error);
// Best effort: what is left costs the bucket's owner space until the bucket's own rule removes it.
void fl_s3_upload_abort(struct fl_s3_link *link, const char *key, const char *id);

// "s3://BUCKET/PREFIX" without a '/' at the end, for sentences.
const char *fl_s3_name(const struct fl_s3 *s3);

#endif
