// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/s3_text.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fl_hex(const void *bytes, size_t count, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < count; i++) {
        *ret_hex++ = digits[byte[i] >> 4];
        *ret_hex++ = digits[byte[i] & 15];
    }
    *ret_hex = '\0';
}

bool fl_is_hex(const char *text, size_t digits)
{
    return strspn(text, "0123456789abcdef") == digits;
}

int fl_sha256_hex(const void *bytes, size_t len, char ret_hex[FL_HEX_BYTES])
{
    unsigned char hash[32];
    if (EVP_Digest(bytes, len, hash, NULL, EVP_sha256(), NULL) != 1)
        return -EIO;
    fl_hex(hash, sizeof(hash), ret_hex);
    return 0;
}

int fl_md5_base64(const void *bytes, size_t len, char ret_base64[32])
{
    unsigned char hash[16];
    if (EVP_Digest(bytes, len, hash, NULL, EVP_md5(), NULL) != 1)
        return -ENOTSUP;
    EVP_EncodeBlock((unsigned char *)ret_base64, hash, sizeof(hash));
    return 0;
}

static bool is_plain(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

char *fl_s3_encode(const char *text, bool keep_slash)
{
    char *encoded = malloc(3 * strlen(text) + 1);
    char *to = encoded;
    for (; encoded && *text; text++) {
        if (is_plain(*text) || (*text == '/' && keep_slash))
            *to++ = *text;
        else
            to += sprintf(to, "%%%02X", (unsigned)(unsigned char)*text);
    }
    if (encoded)
        *to = '\0';
    return encoded;
}

int fl_s3_add_query(char *query, size_t size, const char *name, const char *value)
{
    char *encoded = fl_s3_encode(value, false);
    if (!encoded)
        return -ENOMEM;
    size_t len = strlen(query);
    int more = snprintf(query + len, size - len, "%s%s=%s", len ? "&" : "", name, encoded);
    free(encoded);
    return more < 0 || (size_t)more >= size - len ? -E2BIG : 0;
}

void fl_amz_date(time_t when, char ret_date[FL_AMZ_DATE_BYTES])
{
    struct tm tm;
    if (!gmtime_r(&when, &tm) || strftime(ret_date, FL_AMZ_DATE_BYTES, "%Y%m%dT%H%M%SZ", &tm) == 0)
        memcpy(ret_date, "19700101T000000Z", FL_AMZ_DATE_BYTES);
}

int fl_iso_time(const char *text, time_t *ret_when)
{
    struct tm tm = {.tm_isdst = 0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end)
        return -EINVAL;
    if (*end == '.')
        end += 1 + strspn(end + 1, "0123456789");
    if (strcmp(end, "Z") != 0 && strcmp(end, "+00:00") != 0)
        return -EINVAL;
    *ret_when = timegm(&tm);
    return 0;
}
