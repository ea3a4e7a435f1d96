// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/s3_url.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool bucket_valid(const char *bucket, size_t length)
{
    return length >= 3 && length <= 63 && strspn(bucket, LOWER DIGITS ".-") >= length &&
           strchr(LOWER DIGITS, bucket[0]) && strchr(LOWER DIGITS, bucket[length - 1]);
}

// Each part has a byte at least and is no "." or "..": libcurl and servers would make another path
// of these.
static bool prefix_valid(const char *prefix)
{
    while (*prefix) {
        size_t part = strspn(prefix, LOWER UPPER DIGITS "._-=+@~");
        bool dots = (part == 1 || part == 2) && strspn(prefix, ".") == part;
        if (part == 0 || dots || (prefix[part] != '/' && prefix[part] != '\0'))
            return false;
        prefix += part + (prefix[part] == '/');
    }
    return true;
}

int fl_s3_parse_url(const char *url, struct fl_s3_place *ret_place, struct fl_error *ret_error)
{
    struct fl_s3_place place = {.bucket = ""};
    if (strncmp(url, "s3://", 5) != 0)
        return fl_fail_plain(ret_error, -EINVAL, "'%s' is no s3://BUCKET/PREFIX", url);
    const char *bucket = url + 5;
    size_t length = strcspn(bucket, "/");
    if (!bucket_valid(bucket, length))
        return fl_fail_plain(ret_error, -EINVAL, "'%.*s' cannot name a bucket", (int)length,
                             bucket);
    const char *prefix = bucket + length + (bucket[length] == '/');
    if (strlen(prefix) > sizeof(place.prefix) - 2 || !prefix_valid(prefix))
        return fl_fail_plain(ret_error, -EINVAL, "'%s' cannot be the prefix of a remote store",
                             prefix);
    memcpy(place.bucket, bucket, length);
    size_t bytes = strlen(prefix);
    snprintf(place.prefix, sizeof(place.prefix), "%s%s", prefix,
             bytes > 0 && prefix[bytes - 1] != '/' ? "/" : "");
    *ret_place = place;
    return 0;
}

static bool host_valid(const char *host)
{
    return *host && strspn(host, LOWER UPPER DIGITS ".-:[]_") == strlen(host);
}

static bool region_valid(const char *region)
{
    return *region && strlen(region) < 64 &&
           strspn(region, LOWER UPPER DIGITS "-") == strlen(region);
}

static int split_endpoint(const char *endpoint, char scheme[9], char host[256],
                          struct fl_error *ret_error)
{
    bool secure = strncmp(endpoint, "https://", 8) == 0;
    if (!secure && strncmp(endpoint, "http://", 7) != 0)
        return fl_fail_plain(ret_error, -EINVAL,
                             "the endpoint '%s' begins with neither https:// nor http://",
                             endpoint);
    snprintf(scheme, 9, "%s", secure ? "https://" : "http://");
    int length = snprintf(host, 256, "%s", endpoint + strlen(scheme));
    if (length > 0 && length < 256 && host[length - 1] == '/')
        host[length - 1] = '\0';
    if (strchr(endpoint, '@')) // whose password this may be is not repeated
        return fl_fail_plain(ret_error, -EINVAL,
                             "the endpoint has a name or a password in it, which is no place for "
                             "keys");
    if (length >= 256 || !host_valid(host))
        return fl_fail_plain(ret_error, -EINVAL, "the endpoint '%s' is not a server's", endpoint);
    return 0;
}

int fl_s3_find_server(const char *endpoint, const char *region, const char *bucket,
                      enum fl_s3_style style, struct fl_s3_server *ret_server,
                      struct fl_error *ret_error)
{
    char scheme[9] = "https://";
    char host[256];
    if (!region_valid(region))
        return fl_fail_plain(ret_error, -EINVAL, "'%s' is not a region", region);
    snprintf(host, sizeof(host), "s3.%s.amazonaws.com", region);
    int r = endpoint ? split_endpoint(endpoint, scheme, host, ret_error) : 0;
    if (r < 0)
        return r;
    if (style == FL_S3_STYLE_AUTO)
        style = endpoint || strchr(bucket, '.') ? FL_S3_STYLE_PATH : FL_S3_STYLE_HOST;
    bool in_path = style == FL_S3_STYLE_PATH;
    struct fl_s3_server *server = ret_server;
    snprintf(server->host, sizeof(server->host), "%s%s%s", in_path ? "" : bucket,
             in_path ? "" : ".", host);
    snprintf(server->origin, sizeof(server->origin), "%s%.390s", scheme, server->host);
    snprintf(server->base, sizeof(server->base), "%s%s", in_path ? "/" : "", in_path ? bucket : "");
    return 0;
}
