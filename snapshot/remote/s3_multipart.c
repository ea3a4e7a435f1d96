// SPDX-License-Identifier: Apache-2.0
//
// Objects in parts. An object so written is never a commit: it lies under a key of its own, which
// nothing refers to yet, so nobody cares who completes it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_internal.h"
#include "snapshot/remote/s3_text.h"
#include "snapshot/remote/s3_xml.h"

static int take_id(void *arg, const char *path, const char *value)
{
    char *id = arg;
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId") == 0 &&
        strlen(value) < FL_S3_UPLOAD_ID_BYTES)
        strcpy(id, value);
    return 0;
}

int fl_s3_upload_begin(struct fl_s3_link *link, const char *key, char ret_id[FL_S3_UPLOAD_ID_BYTES],
                       struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {
        .method = "POST", .key = key, .query = "uploads=", .body = "", .bytes = 65536};
    int r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    ret_id[0] = '\0';
    if (answer.status / 100 != 2)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    else if (!answer.text || fl_s3_xml(answer.text, answer.text_bytes, take_id, ret_id) < 0 ||
             !*ret_id)
        r = fl_fail_plain(ret_error, -EPROTO, "%s/%s: the server began no upload", link->s3->name,
                          key);
    fl_s3_answer_free(&answer);
    return r;
}

int fl_s3_upload_part(struct fl_s3_link *link, const char *key, const char *id, unsigned part,
                      const void *bytes, size_t count, char ret_etag[FL_S3_ETAG_BYTES],
                      struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {
        .method = "PUT", .key = key, .body = bytes, .body_bytes = count, .bytes = 65536};
    snprintf(request.query, sizeof(request.query), "partNumber=%u", part);
    int r = fl_s3_add_query(request.query, sizeof(request.query), "uploadId", id);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot write %s/%s", link->s3->name, key);
    r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    if (r < 0)
        return r;
    if (answer.status / 100 != 2)
        r = fl_s3_refused(link, &request, &answer, ret_error);
    else if (!*answer.etag || strpbrk(answer.etag, "<>&"))
        r = fl_fail_plain(ret_error, -EPROTO, "%s/%s: the server gave a part no ETag",
                          link->s3->name, key);
    else
        strcpy(ret_etag, answer.etag);
    fl_s3_answer_free(&answer);
    return r;
}

static char *make_list(const char (*etags)[FL_S3_ETAG_BYTES], unsigned parts, size_t *ret_bytes)
{
    char *text = NULL;
    FILE *to = open_memstream(&text, ret_bytes);
    if (!to)
        return NULL;
    fputs("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", to);
    for (unsigned i = 0; i < parts; i++)
        fprintf(to, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", i + 1, etags[i]);
    fputs("</CompleteMultipartUpload>", to);
    if (fclose(to) == 0)
        return text;
    free(text);
    return NULL;
}

static int take_result(void *arg, const char *path, const char *value)
{
    bool *done = arg;
    (void)value;
    if (strcmp(path, "CompleteMultipartUploadResult") == 0)
        *done = true;
    return 0;
}

// A status of 200 is sent before the server knows: its document says how it went. 1: it did not
// work and may the next time.
static int judge(struct fl_s3_link *link, const struct fl_s3_request *request,
                 const struct fl_s3_answer *answer, bool lost, uint64_t total,
                 struct fl_error *ret_error)
{
    bool done = false;
    uint64_t bytes = 0;
    if (answer->status / 100 == 2 && answer->text &&
        fl_s3_xml(answer->text, answer->text_bytes, take_result, &done) == 0 && done)
        return 0;
    if ((answer->status == 404 && lost) || answer->status / 100 == 2) {
        int r = fl_s3_head(link, request->key, &bytes, ret_error);
        if (r == 0 && bytes == total)
            return 0;
    }
    if (answer->status / 100 != 2)
        return fl_s3_refused(link, request, answer, ret_error);
    fl_fail_plain(ret_error, -EIO, "%s/%s: the server did not complete the upload", link->s3->name,
                  request->key);
    return 1;
}

static int complete(struct fl_s3_link *link, const struct fl_s3_request *request, uint64_t total,
                    struct fl_error *ret_error)
{
    enum { TRIES = 4 };
    struct fl_s3_answer answer;
    bool lost = false;
    int r = 1;
    for (unsigned i = 0; i < TRIES && r == 1; i++) {
        bool again = i > 0;
        r = again ? fl_s3_pause(link->s3, i, 0) : 0;
        if (r < 0)
            return fl_fail_plain(ret_error, r, "interrupted");
        r = fl_s3_do(link, request, &answer, &lost, ret_error);
        if (r < 0)
            return r;
        r = judge(link, request, &answer, lost || again, total, ret_error);
        fl_s3_answer_free(&answer);
    }
    return r == 1 ? -EIO : r;
}

int fl_s3_upload_complete(struct fl_s3_link *link, const char *key, const char *id,
                          const char (*etags)[FL_S3_ETAG_BYTES], unsigned parts, uint64_t total,
                          struct fl_error *ret_error)
{
    struct fl_s3_request request = {.method = "POST", .key = key, .bytes = 65536, .slow = true};
    char *list = make_list(etags, parts, &request.body_bytes);
    int r = list ? fl_s3_add_query(request.query, sizeof(request.query), "uploadId", id) : -ENOMEM;
    request.body = list;
    r = r < 0 ? fl_fail(ret_error, r, "cannot write %s/%s", link->s3->name, key)
              : complete(link, &request, total, ret_error);
    free(list);
    return r;
}

void fl_s3_upload_abort(struct fl_s3_link *link, const char *key, const char *id)
{
    struct fl_s3_answer answer;
    char why[FL_S3_WHY_BYTES];
    struct fl_s3_request request = {.method = "DELETE", .key = key, .bytes = 65536, .anyway = true};
    if (fl_s3_add_query(request.query, sizeof(request.query), "uploadId", id) == 0) {
        fl_s3_exchange(link, &request, &answer, why);
        fl_s3_answer_free(&answer);
    }
}
