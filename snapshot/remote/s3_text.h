// SPDX-License-Identifier: Apache-2.0
//
// Small texts of the S3 protocol: hex, hashes, percent-encoding, times. Any thread; no state.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_TEXT_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define FL_HEX_BYTES 65 // of a SHA-256, with its NUL

// Writes 2 * count lower-case digits and a NUL.
void fl_hex(const void *bytes, size_t count, char *ret_hex);
// True if text begins with exactly `digits` lower-case hex digits.
bool fl_is_hex(const char *text, size_t digits);
// -EIO: libcrypto failed.
int fl_sha256_hex(const void *bytes, size_t len, char ret_hex[FL_HEX_BYTES]);
// The value of Content-MD5. -ENOTSUP: this host's libcrypto has no MD5.
int fl_md5_base64(const void *bytes, size_t len, char ret_base64[32]);

// Encodes all but A-Z a-z 0-9 - . _ ~ (and '/' with keep_slash) as %XX. Returns a new string; NULL:
// no memory.
char *fl_s3_encode(const char *text, bool keep_slash);
// Appends "Name=value" of a query, encoded, after a '&' if there is something before. -E2BIG.
int fl_s3_add_query(char *query, size_t size, const char *name, const char *value);

enum { FL_AMZ_DATE_BYTES = 17 }; // "20150830T123600Z" and NUL
void fl_amz_date(time_t when, char ret_date[FL_AMZ_DATE_BYTES]);
// Reads "2026-12-01T02:42:42.000Z" of listings and credentials. -EINVAL.
int fl_iso_time(const char *text, time_t *ret_when);

#endif
