// SPDX-License-Identifier: Apache-2.0
#include "snapshot/identity.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

const struct fl_identity fl_zero_identity = {{0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9,
                                              0x66, 0xc0, 0x04, 0xd7, 0xd1, 0xd1, 0x6b, 0x02,
                                              0x4f, 0x58, 0x05, 0xff, 0x7c, 0xb4, 0x7c, 0x7a,
                                              0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7}};

struct fl_hasher {
    EVP_MD *md; // fetched once: a lookup by name at each page would cost more than the page's hash
    EVP_MD_CTX *ctx;
};

int fl_hasher_new(struct fl_hasher **ret_hasher)
{
    struct fl_hasher *hasher = calloc(1, sizeof(*hasher));
    if (!hasher)
        return -ENOMEM;
    hasher->md = EVP_MD_fetch(NULL, "SHA256", NULL);
    hasher->ctx = EVP_MD_CTX_new();
    if (!hasher->md || !hasher->ctx) {
        fl_hasher_free(hasher);
        return -ENOMEM;
    }
    *ret_hasher = hasher;
    return 0;
}

void fl_hasher_free(struct fl_hasher *hasher)
{
    if (!hasher)
        return;
    EVP_MD_CTX_free(hasher->ctx);
    EVP_MD_free(hasher->md);
    free(hasher);
}

int fl_hash_start(struct fl_hasher *hasher)
{
    return EVP_DigestInit_ex2(hasher->ctx, hasher->md, NULL) == 1 ? 0 : -EIO;
}

int fl_hash_update(struct fl_hasher *hasher, const void *bytes, size_t len)
{
    return EVP_DigestUpdate(hasher->ctx, bytes, len) == 1 ? 0 : -EIO;
}

int fl_hash_finish(struct fl_hasher *hasher, struct fl_identity *ret_identity)
{
    return EVP_DigestFinal_ex(hasher->ctx, ret_identity->bytes, NULL) == 1 ? 0 : -EIO;
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
