// SPDX-License-Identifier: Apache-2.0
//
// Where a remote store is: the bucket and prefix of "s3://BUCKET/PREFIX", and the server. Any
// thread; no state.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_URL_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_URL_H

#include <stdbool.h>

#include "snapshot/error.h"

struct fl_s3_place {
    char bucket[64];
    char prefix[512]; // "", or a path that ends with '/'
};

// Reads "s3://BUCKET" or "s3://BUCKET/PREFIX". A prefix has parts of A-Z a-z 0-9 . _ - = + @ ~,
// none of them "." or ".."; a '/' at its end counts for nothing. -EINVAL with a sentence.
int fl_s3_parse_url(const char *url, struct fl_s3_place *ret_place, struct fl_error *ret_error);

enum fl_s3_style { FL_S3_STYLE_AUTO, FL_S3_STYLE_PATH, FL_S3_STYLE_HOST };

// The server, as requests need it.
struct fl_s3_server {
    char origin[400]; // "https://HOST[:PORT]"
    char host[400];   // the value of the header Host
    char base[80];    // "" or "/BUCKET": what stands before the key in the path of a request
};

// endpoint: "https://HOST[:PORT]" or "http://..."; NULL: AWS of the region. FL_S3_STYLE_AUTO names
// the bucket in the path at an endpoint that was given, and in the host name at AWS if that fits
// into its certificate (no dot). -EINVAL with a sentence.
int fl_s3_find_server(const char *endpoint, const char *region, const char *bucket,
                      enum fl_s3_style style, struct fl_s3_server *ret_server,
                      struct fl_error *ret_error);

#endif
