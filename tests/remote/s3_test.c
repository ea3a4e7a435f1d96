// SPDX-License-Identifier: Apache-2.0
//
// The signer against AWS's published examples, and what stands around it.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/remote/s3_credentials.h"
#include "snapshot/remote/s3_sign.h"
#include "snapshot/remote/s3_text.h"
#include "snapshot/remote/s3_url.h"
#include "snapshot/remote/s3_xml.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void expect_signature(const struct fl_s3_to_sign *what, const char *access,
                             const char *secret, const char *signature)
{
    char authorization[FL_S3_AUTHORIZATION_BYTES];
    cr_assert_eq(fl_s3_sign(what, access, secret, authorization), 0);
    const char *found = strstr(authorization, "Signature=");
    cr_assert(found != NULL);
    cr_expect_str_eq(found + strlen("Signature="), signature);
}

// The test suite of Signature Version 4.
static void expect_suite(const char *method, const char *path, const char *query,
                         const char *signature)
{
    const struct fl_s3_header headers[] = {{"host", "example.amazonaws.com"},
                                           {"x-amz-date", "20150830T123600Z"}};
    struct fl_s3_to_sign what = {.method = method,
                                 .path = path,
                                 .query = query,
                                 .headers = headers,
                                 .headers_count = 2,
                                 .body_hash = EMPTY,
                                 .date = "20150830T123600Z",
                                 .region = "us-east-1",
                                 .service = "service"};
    expect_signature(&what, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", signature);
}

Test(s3_sign, suite)
{
    expect_suite("GET", "/", "",
                 "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    expect_suite("POST", "/", "",
                 "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    expect_suite("GET", "/", "Param1=value1&Param2=value2",
                 "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    char *path = fl_s3_encode("/\xe1\x88\xb4", true);
    expect_suite("GET", path, "",
                 "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
    free(path);
}

// The examples of S3's own documentation.
static void expect_s3(const char *method, const char *path, const char *query, const char *body,
                      const struct fl_s3_header *more, size_t more_count, const char *signature)
{
    char hash[FL_HEX_BYTES];
    struct fl_s3_header headers[8];
    size_t count = 0;
    cr_assert_eq(fl_sha256_hex(body, strlen(body), hash), 0);
    const struct fl_s3_header common[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                          {"x-amz-content-sha256", hash},
                                          {"x-amz-date", "20130524T000000Z"}};
    size_t at = 0;
    for (size_t i = 0; i < 3 || at < more_count;) { // merges two sorted lists
        bool take = at < more_count && (i == 3 || strcmp(more[at].name, common[i].name) < 0);
        headers[count++] = take ? more[at++] : common[i++];
    }
    struct fl_s3_to_sign what = {.method = method,
                                 .path = path,
                                 .query = query,
                                 .headers = headers,
                                 .headers_count = count,
                                 .body_hash = hash,
                                 .date = "20130524T000000Z",
                                 .region = "us-east-1",
                                 .service = "s3"};
    expect_signature(&what, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                     signature);
}

Test(s3_sign, examples_of_s3)
{
    const struct fl_s3_header range[] = {{"range", "bytes=0-9"}};
    expect_s3("GET", "/test.txt", "", "", range, 1,
              "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    const struct fl_s3_header put[] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                       {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    char *path = fl_s3_encode("/test$file.text", true);
    expect_s3("PUT", path, "", "Welcome to Amazon S3.", put, 2,
              "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    free(path);
    expect_s3("GET", "/", "lifecycle=", "", NULL, 0,
              "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    expect_s3("GET", "/", "max-keys=2&prefix=J", "", NULL, 0,
              "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

Test(s3_sign, too_long)
{
    char authorization[FL_S3_AUTHORIZATION_BYTES];
    char secret[400];
    memset(secret, 'x', sizeof(secret) - 1);
    secret[sizeof(secret) - 1] = '\0';
    struct fl_s3_to_sign what = {.method = "GET",
                                 .path = "/",
                                 .query = "",
                                 .body_hash = EMPTY,
                                 .date = "20130524T000000Z",
                                 .region = "us-east-1",
                                 .service = "s3"};
    cr_expect_eq(fl_s3_sign(&what, "A", secret, authorization), -E2BIG);
    what.region = secret;
    cr_expect_eq(fl_s3_sign(&what, "A", "s", authorization), -E2BIG);
}

Test(s3_url, places)
{
    struct fl_s3_place place;
    struct fl_error error;
    cr_assert_eq(fl_s3_parse_url("s3://my.bucket-1/a/b-c/", &place, &error), 0);
    cr_expect_str_eq(place.bucket, "my.bucket-1");
    cr_expect_str_eq(place.prefix, "a/b-c/");
    cr_assert_eq(fl_s3_parse_url("s3://bucket", &place, &error), 0);
    cr_expect_str_eq(place.prefix, "");
    cr_assert_eq(fl_s3_parse_url("s3://bucket/x", &place, &error), 0);
    cr_expect_str_eq(place.prefix, "x/");
    static const char *const wrong[] = {
        "",
        "bucket",
        "http://bucket/x",
        "s3:///x",
        "s3://b/x",
        "s3://Bucket/x",
        "s3://-bucket/x",
        "s3://bucket//x",
        "s3://bucket/a//b",
        "s3://bucket/../x",
        "s3://bucket/a/.",
        "s3://bucket/a b",
        "s3://bucket/a?b",
        "s3://bucket/%2e",
        "s3://user@bucket/",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect_eq(fl_s3_parse_url(wrong[i], &place, &error), -EINVAL, "%s", wrong[i]);
}

static void expect_server(const char *endpoint, const char *bucket, enum fl_s3_style style,
                          const char *origin, const char *base)
{
    struct fl_s3_server server;
    struct fl_error error;
    cr_assert_eq(fl_s3_find_server(endpoint, "eu-west-3", bucket, style, &server, &error), 0);
    cr_expect_str_eq(server.origin, origin);
    cr_expect_str_eq(server.base, base);
    cr_expect_str_eq(strstr(server.origin, "://") + 3, server.host);
}

Test(s3_url, servers)
{
    expect_server(NULL, "bucket", FL_S3_STYLE_AUTO, "https://bucket.s3.eu-west-3.amazonaws.com",
                  "");
    expect_server(NULL, "buc.ket", FL_S3_STYLE_AUTO, "https://s3.eu-west-3.amazonaws.com",
                  "/buc.ket");
    expect_server(NULL, "bucket", FL_S3_STYLE_PATH, "https://s3.eu-west-3.amazonaws.com",
                  "/bucket");
    expect_server("http://h:9000/", "bucket", FL_S3_STYLE_AUTO, "http://h:9000", "/bucket");
    expect_server("https://h", "bucket", FL_S3_STYLE_HOST, "https://bucket.h", "");
    struct fl_s3_server server;
    static const char *const wrong[] = {
        "", "h", "ftp://h", "http://", "http://h/path", "http://u:p@h"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect_eq(fl_s3_find_server(wrong[i], "r", "bucket", FL_S3_STYLE_AUTO, &server, NULL),
                     -EINVAL, "%s", wrong[i]);
    cr_expect_eq(fl_s3_find_server(NULL, "a/b", "bucket", FL_S3_STYLE_AUTO, &server, NULL),
                 -EINVAL);
}

Test(s3_text, queries_and_times)
{
    char query[64] = "";
    time_t when;
    char date[FL_AMZ_DATE_BYTES];
    cr_expect_eq(fl_s3_add_query(query, sizeof(query), "a", "x/y+z="), 0);
    cr_expect_eq(fl_s3_add_query(query, sizeof(query), "b", ""), 0);
    cr_expect_str_eq(query, "a=x%2Fy%2Bz%3D&b=");
    cr_expect_eq(fl_s3_add_query(query, sizeof(query), "c",
                                 "0123456789012345678901234567890123456789012345678901234567890"),
                 -E2BIG);
    cr_expect_eq(fl_iso_time("2015-08-30T12:36:00.000Z", &when), 0);
    fl_amz_date(when, date);
    cr_expect_str_eq(date, "20150830T123600Z");
    cr_expect_eq(fl_iso_time("2015-08-30T12:36:00", &when), -EINVAL);
    cr_expect_eq(fl_iso_time("yesterday", &when), -EINVAL);
}

static int see(void *arg, const char *path, const char *value)
{
    char *seen = arg;
    sprintf(seen + strlen(seen), "%s=%s;", path, value);
    return strcmp(value, "stop") == 0 ? 7 : 0;
}

Test(s3_xml, paths)
{
    char seen[512] = "";
    const char *text = "<?xml version=\"1.0\"?><a xmlns=\"u\"><b>x &amp; y</b><c><b/></c></a>";
    cr_expect_eq(fl_s3_xml(text, strlen(text), see, seen), 0);
    cr_expect_str_eq(seen, "a/b=x & y;a/c/b=;a/c=;a=;");
    text = "<a><b>stop</b><b>never</b></a>";
    cr_expect_eq(fl_s3_xml(text, strlen(text), see, seen), 7);
    cr_expect(strstr(seen, "never") == NULL);
    static const char *const wrong[] = {"", "no", "<a>", "<a></b>", "<a/><b/>"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect_eq(fl_s3_xml(wrong[i], strlen(wrong[i]), see, seen), -EBADMSG, "%s", wrong[i]);
    char deep[4096] = "";
    for (int i = 0; i < 500; i++)
        strcat(deep, "<abc>");
    cr_expect_eq(fl_s3_xml(deep, strlen(deep), see, seen), -EBADMSG);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    cr_assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

Test(s3_credentials, files)
{
    char path[] = "/tmp/faultline-keys.XXXXXX";
    struct fl_error error = {""};
    struct fl_s3_credentials *keys = fl_s3_credentials_new();
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && keys);
    close(fd);
    write_file(path, "# c\n[default]\r\naws_access_key_id = A\r\naws_secret_access_key=S=x\n"
                     "; aws_session_token=no\n[profile two ]\naws_access_key_id=B\n"
                     "aws_secret_access_key= T\naws_session_token =tok\n[three]\nregion=x");
    cr_expect_eq(fl_s3_credentials_file(path, "default", keys, &error), 0);
    cr_expect_str_eq(keys->access_key, "A");
    cr_expect_str_eq(keys->secret_key, "S=x");
    cr_expect_str_eq(keys->token, "");
    cr_expect_eq(fl_s3_credentials_file(path, "two", keys, &error), 0);
    cr_expect_str_eq(keys->access_key, "B");
    cr_expect_str_eq(keys->secret_key, "T");
    cr_expect_str_eq(keys->token, "tok");
    memset(keys, 0, sizeof(*keys));
    cr_expect_eq(fl_s3_credentials_file(path, "three", keys, &error), -ENOKEY);
    cr_expect_eq(fl_s3_credentials_file(path, "four", keys, &error), -ENOKEY);
    unlink(path);
    cr_expect_eq(fl_s3_credentials_file(path, "two", keys, &error), -ENOENT);
    fl_s3_credentials_free(keys);
}
