// SPDX-License-Identifier: Apache-2.0
//
// What the files of the client share: one request, one answer, and how they are exchanged.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_INTERNAL_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_INTERNAL_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "snapshot/remote/s3.h"

enum { FL_S3_LINKS_KEPT = 8 };

struct fl_s3 {
    struct fl_s3_place place;
    struct fl_s3_server server;
    char *region, *ca_file, *credentials_file, *profile;
    uint64_t timeout_ms, retry_for_ms;
    bool (*cancelled)(void);
    char name[600];
    _Atomic long skew; // seconds that the server's clock is ahead of ours
    _Atomic long date; // of the server's last answer; 0: it has not said
    pthread_mutex_t lock;
    struct fl_s3_credentials *credentials; // under the lock
    // Links that nobody has, with their connections, which cost round trips; under the lock.
    struct fl_s3_link *kept[FL_S3_LINKS_KEPT];
    unsigned kept_count;
};

struct fl_s3_link {
    struct fl_s3 *s3;
    CURL *curl;
};

struct fl_s3_request {
    const char *method;
    const char *key;  // below the prefix; NULL: the bucket itself
    char query[3072]; // encoded and sorted
    const void *body; // of PUT and POST
    size_t body_bytes;
    bool new_only; // If-None-Match: *
    bool ranged;
    uint64_t offset;
    void *into;   // where the body of a good answer goes; NULL: to answer.text
    size_t bytes; // of it that are asked for; or the most that answer.text may have
    bool slow;    // the server may need long before it answers
    bool anyway;  // sent although the user has cancelled: it cleans up
};

struct fl_s3_answer {
    long status;
    char *text; // what did not go elsewhere, with a NUL behind it
    size_t text_bytes;
    size_t got;     // bytes in request.into
    bool too_long;  // there was more than was asked for
    bool has_range; // Content-Range
    uint64_t range_first, range_last, range_total;
    bool has_length;
    uint64_t length; // Content-Length
    time_t date;     // of the server; 0: it did not say
    time_t retry_after;
    char etag[FL_S3_ETAG_BYTES];
    char code[64]; // of an error
    char message[200];
};

// Sends the request once. 0: there is an answer, of whatever status; else errno, and a text of
// libcurl about why. The answer is to be released in both cases.
enum { FL_S3_WHY_BYTES = CURL_ERROR_SIZE };
int fl_s3_exchange(struct fl_s3_link *link, const struct fl_s3_request *request,
                   struct fl_s3_answer *answer, char ret_why[FL_S3_WHY_BYTES]);
void fl_s3_answer_free(struct fl_s3_answer *answer);

// Sends it until there is an answer that counts, or time is over. *ret_lost (may be NULL): an
// earlier attempt may have been carried out, although its answer never came.
int fl_s3_do(struct fl_s3_link *link, const struct fl_s3_request *request,
             struct fl_s3_answer *answer, bool *ret_lost, struct fl_error *ret_error);
// The sentence about an answer of a status that was not wanted; returns its errno.
int fl_s3_refused(struct fl_s3_link *link, const struct fl_s3_request *request,
                  const struct fl_s3_answer *answer, struct fl_error *ret_error);
// Sleeps for some time, which grows with the attempt. -ECANCELED.
int fl_s3_pause(struct fl_s3 *s3, unsigned attempt, time_t at_least);
uint64_t fl_s3_now_ms(void);
// Looks at an object. -ENOENT.
int fl_s3_head(struct fl_s3_link *link, const char *key, uint64_t *ret_bytes,
               struct fl_error *ret_error);

#endif
