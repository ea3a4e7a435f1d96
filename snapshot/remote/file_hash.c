// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/file_hash.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "snapshot/io.h"

#define ATTRIBUTE "user.faultline.sha256"
enum { STEP = 1 << 20, VALUE_BYTES = 160 };

static int hash_all(int fd, EVP_MD_CTX *hash, void *buf, uint64_t bytes, bool (*cancelled)(void))
{
    int r = 0;
    for (uint64_t at = 0; at < bytes && r == 0; at += STEP) {
        size_t part = bytes - at < STEP ? (size_t)(bytes - at) : STEP;
        r = cancelled && cancelled() ? -ECANCELED : fl_pread_full(fd, buf, part, at);
        if (r == 0 && EVP_DigestUpdate(hash, buf, part) != 1)
            r = -EIO;
    }
    return r;
}

int fl_file_hash(int fd, bool (*cancelled)(void), char ret_hex[FL_HEX_BYTES], uint64_t *ret_bytes)
{
    unsigned char digest[32];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    FL_AUTO_FREE void *buf = malloc(STEP);
    int r = hash && buf && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1
                ? fl_file_size(fd, ret_bytes)
                : -ENOMEM;
    if (r == 0)
        r = hash_all(fd, hash, buf, *ret_bytes, cancelled);
    if (r == 0 && EVP_DigestFinal_ex(hash, digest, NULL) != 1)
        r = -EIO;
    EVP_MD_CTX_free(hash);
    if (r == 0)
        fl_hex(digest, sizeof(digest), ret_hex);
    return r;
}

// What the attribute says if it is about the file as it is now.
static int print_value(int fd, const char *hex, char value[VALUE_BYTES], uint64_t *ret_bytes)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    *ret_bytes = (uint64_t)st.st_size;
    return snprintf(value, VALUE_BYTES, "%s %" PRIu64 " %lld.%09ld", hex, *ret_bytes,
                    (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static bool remembered(int fd, char ret_hex[FL_HEX_BYTES], uint64_t *ret_bytes)
{
    char value[VALUE_BYTES];
    char expected[VALUE_BYTES];
    ssize_t count = fgetxattr(fd, ATTRIBUTE, value, sizeof(value) - 1);
    if (count < FL_HEX_BYTES)
        return false;
    value[count] = '\0';
    if (!fl_is_hex(value, 64))
        return false;
    memcpy(ret_hex, value, 64);
    ret_hex[64] = '\0';
    return print_value(fd, ret_hex, expected, ret_bytes) > 0 && strcmp(value, expected) == 0;
}

void fl_pack_file_note_hash(int fd, const char *hex)
{
    char value[VALUE_BYTES];
    uint64_t bytes;
    if (print_value(fd, hex, value, &bytes) > 0)
        (void)!fsetxattr(fd, ATTRIBUTE, value, strlen(value), 0);
}

int fl_pack_file_hash(int fd, bool (*cancelled)(void), char ret_hex[FL_HEX_BYTES],
                      uint64_t *ret_bytes)
{
    if (remembered(fd, ret_hex, ret_bytes))
        return 0;
    int r = fl_file_hash(fd, cancelled, ret_hex, ret_bytes);
    if (r == 0)
        fl_pack_file_note_hash(fd, ret_hex);
    return r;
}
