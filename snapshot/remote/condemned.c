// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/push_files.h"

enum { LIST_MAX_BYTES = 64 << 20 };

static int add_key(struct fl_condemned *condemned, const char *key)
{
    // The list doubles at each power of two.
    size_t count = condemned->count;
    if ((count & (count - 1)) == 0) {
        char **grown = realloc(condemned->keys, (count ? 2 * count : 1) * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        condemned->keys = grown;
    }
    condemned->keys[count] = strdup(key);
    if (!condemned->keys[count])
        return -ENOMEM;
    condemned->count++;
    return 0;
}

// A key that is misread would be relied on and removed, so its bytes are verified, too.
static int get_list(struct fl_remote *remote, const char *list, char **ret_text,
                    struct fl_error *ret_error)
{
    enum { TRIES = 2 };
    char hex[FL_HEX_BYTES];
    size_t bytes;
    for (int i = 0; i < TRIES; i++) {
        int r = fl_s3_get(remote->link, list, LIST_MAX_BYTES, ret_text, &bytes, ret_error);
        if (r < 0)
            return r;
        if (fl_sha256_hex(*ret_text, bytes, hex) == 0 &&
            strncmp(list + strlen(FL_CONDEMNED_PREFIX), hex, 64) == 0)
            return 0;
        free(*ret_text);
    }
    return fl_fail_plain(ret_error, -EBADMSG,
                         "%s/%s has other bytes than it should (it may be removed: what it names "
                         "is condemned anew)",
                         fl_s3_name(remote->s3), list);
}

int fl_condemned_add(struct fl_remote *remote, const char *list, struct fl_condemned *condemned,
                     struct fl_error *ret_error)
{
    char *text = NULL;
    char *rest = NULL;
    if (!fl_hashed_key_valid(list, FL_CONDEMNED_PREFIX))
        return 0;
    int r = get_list(remote, list, &text, ret_error);
    if (r == -ENOENT) // collected a moment ago: what it named is gone, too, or needed
        return 0;
    if (r < 0)
        return r;
    for (char *line = strtok_r(text, "\n", &rest); line && r == 0;
         line = strtok_r(NULL, "\n", &rest)) {
        if (fl_data_key_valid(line))
            r = add_key(condemned, line);
    }
    free(text);
    return r < 0 ? fl_fail(ret_error, r, "cannot read %s/%s", fl_s3_name(remote->s3), list) : 0;
}

static int compare(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

void fl_condemned_sort(struct fl_condemned *condemned)
{
    if (condemned->count > 0)
        qsort(condemned->keys, condemned->count, sizeof(*condemned->keys), compare);
}

int fl_condemned_read(struct fl_remote *remote, struct fl_condemned *ret_condemned, time_t *ret_now,
                      struct fl_error *ret_error)
{
    struct fl_s3_listing listing;
    *ret_condemned = (struct fl_condemned){.keys = NULL};
    int r = fl_s3_list(remote->link, FL_CONDEMNED_PREFIX, &listing, ret_error);
    *ret_now = listing.now;
    for (size_t i = 0; i < listing.count && r == 0; i++)
        r = fl_condemned_add(remote, listing.objects[i].key, ret_condemned, ret_error);
    fl_s3_listing_free(&listing);
    fl_condemned_sort(ret_condemned);
    if (r < 0)
        fl_condemned_free(ret_condemned);
    return r;
}

bool fl_condemned_has(const struct fl_condemned *condemned, const char *key)
{
    return condemned->count > 0 && bsearch(&key, condemned->keys, condemned->count,
                                           sizeof(*condemned->keys), compare) != NULL;
}

void fl_condemned_free(struct fl_condemned *condemned)
{
    for (size_t i = 0; i < condemned->count; i++)
        free(condemned->keys[i]);
    free(condemned->keys);
    *condemned = (struct fl_condemned){.keys = NULL};
}
