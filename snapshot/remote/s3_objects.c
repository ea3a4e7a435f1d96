// SPDX-License-Identifier: Apache-2.0
//
// Objects as a whole: read, written, looked at, removed.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_internal.h"

static int wrong_answer(struct fl_s3_link *link, const char *key, const char *what,
                        struct fl_error *ret_error)
{
    return fl_fail_plain(ret_error, -EPROTO, "%s/%s: %s", link->s3->name, key, what);
}

// Some servers answer a range with status 200, and some with the whole object.
static int check_range(struct fl_s3_link *link, const struct fl_s3_request *request,
                       const struct fl_s3_answer *answer, uint64_t total,
                       struct fl_error *ret_error)
{
    bool whole = !answer->has_range && request->offset == 0 && request->bytes == total;
    if (answer->too_long || (!answer->has_range && !whole))
        return wrong_answer(link, request->key, "the server does not answer with the range",
                            ret_error);
    if (answer->has_range && answer->range_total != total)
        return wrong_answer(link, request->key, "the object has another size", ret_error);
    if (answer->has_range && (answer->range_first != request->offset ||
                              answer->range_last != request->offset + request->bytes - 1))
        return wrong_answer(link, request->key, "the server answers with another range", ret_error);
    if (answer->got != request->bytes)
        return wrong_answer(link, request->key, "the server's answer is too short", ret_error);
    return 0;
}

int fl_s3_get_range(struct fl_s3_link *link, const char *key, uint64_t offset, size_t bytes,
                    uint64_t total, void *buf, struct fl_error *ret_error)
{
    enum { TRIES = 4 };
    struct fl_s3_answer answer;
    struct fl_s3_request request = {
        .method = "GET",
        .key = key,
        .ranged = true,
        .offset = offset,
        .into = buf,
        .bytes = bytes,
    };
    int r = -EPROTO;
    for (unsigned i = 0; i < TRIES && r == -EPROTO; i++) {
        r = i > 0 ? fl_s3_pause(link->s3, i, 0) : 0;
        if (r < 0)
            return fl_fail_plain(ret_error, r, "interrupted");
        r = fl_s3_do(link, &request, &answer, NULL, ret_error);
        if (r < 0)
            return r;
        r = answer.status / 100 == 2 ? check_range(link, &request, &answer, total, ret_error)
                                     : fl_s3_refused(link, &request, &answer, ret_error);
        fl_s3_answer_free(&answer);
    }
    return r;
}

int fl_s3_get(struct fl_s3_link *link, const char *key, size_t max, char **ret_bytes,
              size_t *ret_count, struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {.method = "GET", .key = key, .bytes = max};
    int r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    if (answer.status / 100 != 2)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    else if (answer.too_long)
        r = fl_fail_plain(ret_error, -EFBIG, "%s/%s is too large", link->s3->name, key);
    if (r == 0 && !answer.text)
        answer.text = calloc(1, 1);
    if (r == 0 && answer.text) {
        *ret_bytes = answer.text;
        *ret_count = answer.text_bytes;
        answer.text = NULL;
    }
    fl_s3_answer_free(&answer);
    return r;
}

int fl_s3_put(struct fl_s3_link *link, const char *key, const void *bytes, size_t count,
              struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {
        .method = "PUT", .key = key, .body = bytes, .body_bytes = count, .bytes = 65536};
    int r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    if (answer.status / 100 != 2)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    fl_s3_answer_free(&answer);
    return r;
}

// There is an object. 0: it is what was to be written.
static int compare(struct fl_s3_link *link, const char *key, const void *bytes, size_t count,
                   struct fl_error *ret_error)
{
    char *there = NULL;
    size_t there_count = 0;
    int r = fl_s3_get(link, key, count + 65536, &there, &there_count, ret_error);
    if (r == -EFBIG || (r == 0 && (there_count != count || memcmp(there, bytes, count) != 0)))
        r = fl_fail_plain(ret_error, -EEXIST, "%s/%s is there already, and is another",
                          link->s3->name, key);
    free(there);
    return r;
}

int fl_s3_put_new(struct fl_s3_link *link, const char *key, const void *bytes, size_t count,
                  bool *ret_made, struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {.method = "PUT",
                                    .key = key,
                                    .body = bytes,
                                    .body_bytes = count,
                                    .new_only = true,
                                    .bytes = 65536};
    *ret_made = false;
    int r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    if (answer.status == 412)
        r = compare(link, key, bytes, count, ret_error);
    else if (answer.status / 100 != 2)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    else
        *ret_made = true;
    fl_s3_answer_free(&answer);
    return r;
}

int fl_s3_head(struct fl_s3_link *link, const char *key, uint64_t *ret_bytes,
               struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {.method = "HEAD", .key = key};
    int r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    if (answer.status / 100 != 2)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    *ret_bytes = answer.length;
    fl_s3_answer_free(&answer);
    return r;
}

int fl_s3_delete(struct fl_s3_link *link, const char *key, struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {.method = "DELETE", .key = key, .bytes = 65536};
    int r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    if (answer.status / 100 != 2 && answer.status != 404)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    fl_s3_answer_free(&answer);
    return r;
}
