// SPDX-License-Identifier: Apache-2.0
//
// Finds the keys that requests are signed with. They are in memory of their own that core dumps
// leave out, and are wiped before it is given back. They come from the first of these that has
// some: the file that the user names; the environment; ~/.aws/credentials; the endpoint for
// containers; the endpoint for instances. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_CREDENTIALS_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_CREDENTIALS_H

#include <stdbool.h>
#include <time.h>

#include "snapshot/error.h"

struct fl_s3_credentials {
    char access_key[128];
    char secret_key[192];
    char token[6144]; // "": none
    time_t expires;   // 0: never
};

// All zero. NULL: no memory.
struct fl_s3_credentials *fl_s3_credentials_new(void);
void fl_s3_credentials_free(struct fl_s3_credentials *credentials); // wipes; NULL is a no-op

struct fl_s3_source {
    const char *file;    // NULL: the usual places
    const char *profile; // NULL: $AWS_PROFILE, else "default"
};

// May block for some seconds on the endpoints of containers and instances. -ENOKEY: there are
// none; -EINVAL: those that were found cannot be used; errors of reading. The sentence never has
// a part of a secret.
int fl_s3_credentials_find(const struct fl_s3_source *source, struct fl_s3_credentials *credentials,
                           struct fl_error *ret_error);
// Reads a profile of a credentials file. -ENOENT: there is no file; -ENOKEY: it has no such
// profile, or one without keys.
int fl_s3_credentials_file(const char *path, const char *profile,
                           struct fl_s3_credentials *credentials, struct fl_error *ret_error);
// Asks the endpoints of containers and of instances (s3_metadata.c). -ENOKEY: neither is there.
int fl_s3_credentials_metadata(struct fl_s3_credentials *credentials, struct fl_error *ret_error);

#endif
