// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/s3_sign.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_text.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
enum { HASH = 32, DAY = 8, SCOPE_BYTES = 160 };

static void print_names(FILE *to, const struct fl_s3_to_sign *what)
{
    for (size_t i = 0; i < what->headers_count; i++)
        fprintf(to, "%s%s", i ? ";" : "", what->headers[i].name);
}

// The hash of the canonical request, in hex.
static int hash_request(const struct fl_s3_to_sign *what, char ret_hex[FL_HEX_BYTES])
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (!to)
        return -ENOMEM;
    fprintf(to, "%s\n%s\n%s\n", what->method, what->path, what->query);
    for (size_t i = 0; i < what->headers_count; i++)
        fprintf(to, "%s:%s\n", what->headers[i].name, what->headers[i].value);
    fputc('\n', to);
    print_names(to, what);
    fprintf(to, "\n%s", what->body_hash);
    int r = fclose(to) == 0 ? fl_sha256_hex(text, bytes, ret_hex) : -ENOMEM;
    free(text);
    return r;
}

static int hmac(const void *key, size_t key_bytes, const char *text, uint8_t ret_hash[HASH])
{
    return HMAC(EVP_sha256(), key, (int)key_bytes, (const unsigned char *)text, strlen(text),
                ret_hash, NULL)
               ? 0
               : -EIO;
}

// The key of a day, a region and a service.
static int derive_key(const struct fl_s3_to_sign *what, const char *secret, uint8_t ret_key[HASH])
{
    char first[256];
    char day[DAY + 1];
    uint8_t key[HASH];
    snprintf(day, sizeof(day), "%.*s", DAY, what->date);
    int length = snprintf(first, sizeof(first), "AWS4%s", secret);
    int r = length >= (int)sizeof(first) ? -E2BIG : hmac(first, (size_t)length, day, ret_key);
    if (r == 0)
        r = hmac(ret_key, HASH, what->region, key);
    if (r == 0)
        r = hmac(key, HASH, what->service, ret_key);
    if (r == 0)
        r = hmac(ret_key, HASH, "aws4_request", key);
    if (r == 0)
        memcpy(ret_key, key, HASH);
    OPENSSL_cleanse(first, sizeof(first));
    OPENSSL_cleanse(key, sizeof(key));
    return r;
}

static int print_authorization(const struct fl_s3_to_sign *what, const char *access_key,
                               const char *scope, const char *signature, char *ret, size_t size)
{
    FILE *to = fmemopen(ret, size, "w");
    if (!to)
        return -ENOMEM;
    fprintf(to, ALGORITHM " Credential=%s/%s, SignedHeaders=", access_key, scope);
    print_names(to, what);
    fprintf(to, ", Signature=%s", signature);
    // It must have ended within the buffer, with its NUL.
    return fclose(to) == 0 && memchr(ret, '\0', size) && strstr(ret, signature) ? 0 : -E2BIG;
}

int fl_s3_sign(const struct fl_s3_to_sign *what, const char *access_key, const char *secret_key,
               char ret_authorization[FL_S3_AUTHORIZATION_BYTES])
{
    char scope[SCOPE_BYTES];
    char text[SCOPE_BYTES + 128];
    char hex[FL_HEX_BYTES];
    uint8_t key[HASH];
    uint8_t hash[HASH];
    int length = snprintf(scope, sizeof(scope), "%.*s/%s/%s/aws4_request", DAY, what->date,
                          what->region, what->service);
    int r = length >= (int)sizeof(scope) ? -E2BIG : hash_request(what, hex);
    if (r < 0)
        return r;
    snprintf(text, sizeof(text), ALGORITHM "\n%s\n%s\n%s", what->date, scope, hex);
    r = derive_key(what, secret_key, key);
    if (r == 0)
        r = hmac(key, HASH, text, hash);
    OPENSSL_cleanse(key, sizeof(key));
    if (r < 0)
        return r;
    fl_hex(hash, HASH, hex);
    return print_authorization(what, access_key, scope, hex, ret_authorization,
                               FL_S3_AUTHORIZATION_BYTES);
}
