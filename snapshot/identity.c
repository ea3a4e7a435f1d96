// SPDX-License-Identifier: Apache-2.0
#include "snapshot/identity.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

const struct fl_identity fl_zero_identity = {{0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9,
                                              0x66, 0xc0, 0x04, 0xd7, 0xd1, 0xd1, 0x6b, 0x02,
                                              0x4f, 0x58, 0x05, 0xff, 0x7c, 0xb4, 0x7c, 0x7a,
                                              0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7}};

struct fl_hasher {
    struct sha256_ctx ctx;
};

int fl_hasher_new(struct fl_hasher **ret_hasher)
{
    struct fl_hasher *hasher = calloc(1, sizeof(*hasher));
    if (!hasher)
        return -ENOMEM;
    sha256_init(&hasher->ctx);
    *ret_hasher = hasher;
    return 0;
}

void fl_hasher_free(struct fl_hasher *hasher)
{
    free(hasher);
}

int fl_hash_start(struct fl_hasher *hasher)
{
    sha256_init(&hasher->ctx);
    return 0;
}

int fl_hash_update(struct fl_hasher *hasher, const void *bytes, size_t len)
{
    sha256_update(&hasher->ctx, len, bytes);
    return 0;
}

int fl_hash_finish(struct fl_hasher *hasher, struct fl_identity *ret_identity)
{
    sha256_digest(&hasher->ctx, sizeof(ret_identity->bytes), ret_identity->bytes);
    return 0;
}

int fl_hash_page(struct fl_hasher *hasher, const void *page, struct fl_identity *ret_identity)
{
    int r = fl_hash_start(hasher);
    if (r == 0)
        r = fl_hash_update(hasher, page, FL_PAGE_SIZE);
    return r < 0 ? r : fl_hash_finish(hasher, ret_identity);
}

bool fl_page_is_zero(const void *page)
{
    static const char zeros[FL_PAGE_SIZE];
    return memcmp(page, zeros, sizeof(zeros)) == 0;
}
