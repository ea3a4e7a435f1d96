// SPDX-License-Identifier: Apache-2.0
//
// Signs a request as AWS Signature Version 4 says, on libcrypto. libcurl 7.88's own signer cannot
// be used: it cannot correct a clock, and hashes no body. Any thread; no state.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_SIGN_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_SIGN_H

#include <stddef.h>

// A header that is signed: the name in lower case, the value without white space around it.
struct fl_s3_header {
    const char *name;
    const char *value;
};

struct fl_s3_to_sign {
    const char *method;
    const char *path;  // encoded, begins with '/'
    const char *query; // encoded, sorted by name, each with a '='; "" if there is none
    const struct fl_s3_header *headers; // sorted by name; all that are signed
    size_t headers_count;
    const char *body_hash; // SHA-256 of the body in hex
    const char *date;      // as x-amz-date has it: "20150830T123600Z"
    const char *region, *service;
};

enum { FL_S3_AUTHORIZATION_BYTES = 768 };
// Writes the value of the Authorization header. What was made of the secret on the way is wiped.
// -EIO: libcrypto failed; -ENOMEM; -E2BIG.
int fl_s3_sign(const struct fl_s3_to_sign *what, const char *access_key, const char *secret_key,
               char ret_authorization[FL_S3_AUTHORIZATION_BYTES]);

#endif
