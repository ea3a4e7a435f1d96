// SPDX-License-Identifier: Apache-2.0
//
// Listings: by pages, with the server's own token, and sorted here, since many servers do not.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_internal.h"
#include "snapshot/remote/s3_text.h"
#include "snapshot/remote/s3_xml.h"

enum { PAGE_BYTES = 32 << 20 };

struct page {
    const struct fl_s3 *s3;
    struct fl_s3_listing *listing;
    size_t room;
    struct fl_s3_object object; // that is being read
    bool truncated;
    char token[2048];
    bool is_listing;
};

static int add_object(struct page *page)
{
    struct fl_s3_listing *listing = page->listing;
    size_t prefix = strlen(page->s3->place.prefix);
    struct fl_s3_object object = page->object;
    page->object = (struct fl_s3_object){.key = NULL};
    if (!object.key || strncmp(object.key, page->s3->place.prefix, prefix) != 0) {
        free(object.key);
        return -EBADMSG;
    }
    memmove(object.key, object.key + prefix, strlen(object.key) - prefix + 1);
    if (listing->count == page->room) {
        page->room = page->room ? 2 * page->room : 256;
        struct fl_s3_object *grown = realloc(listing->objects, page->room * sizeof(*grown));
        if (!grown) {
            free(object.key);
            return -ENOMEM;
        }
        listing->objects = grown;
    }
    listing->objects[listing->count++] = object;
    return 0;
}

static int take(void *arg, const char *path, const char *value)
{
    struct page *page = arg;
    char *end;
    if (strcmp(path, "ListBucketResult/Contents/Key") == 0) {
        free(page->object.key);
        page->object.key = strdup(value);
        return page->object.key ? 0 : -ENOMEM;
    }
    if (strcmp(path, "ListBucketResult/Contents/Size") == 0) {
        page->object.bytes = strtoull(value, &end, 10);
        return *end || end == value ? -EBADMSG : 0;
    }
    if (strcmp(path, "ListBucketResult/Contents/LastModified") == 0)
        return fl_iso_time(value, &page->object.modified) < 0 ? -EBADMSG : 0;
    if (strcmp(path, "ListBucketResult/Contents") == 0)
        return add_object(page);
    if (strcmp(path, "ListBucketResult/IsTruncated") == 0)
        page->truncated = strcmp(value, "true") == 0;
    else if (strcmp(path, "ListBucketResult/NextContinuationToken") == 0 &&
             strlen(value) < sizeof(page->token))
        strcpy(page->token, value);
    else if (strcmp(path, "ListBucketResult") == 0)
        page->is_listing = true;
    return 0;
}

static int compare(const void *left, const void *right)
{
    return strcmp(((const struct fl_s3_object *)left)->key,
                  ((const struct fl_s3_object *)right)->key);
}

// The names of a query are signed in their order.
static int make_query(const struct page *page, const char *begin, struct fl_s3_request *request)
{
    char prefix[1200];
    strcpy(prefix, page->s3->place.prefix);
    strncat(prefix, begin, sizeof(prefix) - strlen(prefix) - 1);
    int r = 0;
    if (*page->token)
        r = fl_s3_add_query(request->query, sizeof(request->query), "continuation-token",
                            page->token);
    if (r == 0)
        r = fl_s3_add_query(request->query, sizeof(request->query), "list-type", "2");
    if (r == 0)
        r = fl_s3_add_query(request->query, sizeof(request->query), "prefix", prefix);
    return r;
}

static int list_page(struct fl_s3_link *link, const char *begin, struct page *page,
                     struct fl_error *ret_error)
{
    struct fl_s3_answer answer;
    struct fl_s3_request request = {.method = "GET", .bytes = PAGE_BYTES};
    char before[sizeof(page->token)];
    int r = make_query(page, begin, &request);
    if (r == 0)
        r = fl_s3_do(link, &request, &answer, NULL, ret_error);
    else
        return fl_fail(ret_error, r, "cannot list %s", link->s3->name);
    if (r < 0)
        return r;
    strcpy(before, page->token);
    page->truncated = page->is_listing = false;
    page->token[0] = '\0';
    if (page->listing->now == 0)
        page->listing->now = answer.date;
    if (answer.status / 100 != 2) {
        r = fl_s3_refused(link, &request, &answer, ret_error);
    } else {
        r = answer.text && !answer.too_long ? fl_s3_xml(answer.text, answer.text_bytes, take, page)
                                            : -EBADMSG;
        // A page that leads to itself would never end.
        if (r == 0 && (!page->is_listing ||
                       (page->truncated && (!*page->token || strcmp(page->token, before) == 0))))
            r = -EBADMSG;
        if (r < 0)
            r = fl_fail_plain(ret_error, r == -EBADMSG ? -EPROTO : r,
                              "%s: the server's listing cannot be read", link->s3->name);
    }
    fl_s3_answer_free(&answer);
    return r;
}

int fl_s3_list(struct fl_s3_link *link, const char *begin, struct fl_s3_listing *ret_listing,
               struct fl_error *ret_error)
{
    struct page *page = calloc(1, sizeof(*page));
    *ret_listing = (struct fl_s3_listing){.objects = NULL};
    if (!page)
        return fl_fail(ret_error, -ENOMEM, "cannot list %s", link->s3->name);
    page->s3 = link->s3;
    page->listing = ret_listing;
    int r;
    do {
        r = list_page(link, begin, page, ret_error);
    } while (r == 0 && page->truncated);
    free(page->object.key);
    free(page);
    if (ret_listing->count > 0)
        qsort(ret_listing->objects, ret_listing->count, sizeof(*ret_listing->objects), compare);
    return r;
}

void fl_s3_listing_free(struct fl_s3_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->objects[i].key);
    free(listing->objects);
    *listing = (struct fl_s3_listing){.objects = NULL};
}
