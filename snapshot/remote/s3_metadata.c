// SPDX-License-Identifier: Apache-2.0
//
// Keys that the host hands out: an endpoint for containers, whose address is in the environment,
// and the endpoint of an instance (version 2, which needs a token that no forwarded request has).
#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_credentials.h"
#include "snapshot/remote/s3_text.h"

enum { ANSWER_BYTES = 16384, CONNECT_MS = 1000, TOTAL_MS = 4000 };
#define CONTAINER_HOST "http://169.254.170.2"
#define INSTANCE_HOST "http://169.254.169.254"

struct answer {
    char text[ANSWER_BYTES];
    size_t count;
};

static size_t collect(char *bytes, size_t one, size_t count, void *arg)
{
    struct answer *answer = arg;
    (void)one;
    if (answer->count + count >= sizeof(answer->text))
        return 0;
    memcpy(answer->text + answer->count, bytes, count);
    answer->count += count;
    answer->text[answer->count] = '\0';
    return count;
}

static int ask(const char *method, const char *url, const char *header, struct answer *answer)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = header ? curl_slist_append(NULL, header) : NULL;
    long status = 0;
    answer->count = 0;
    answer->text[0] = '\0';
    if (!curl || (header && !headers)) {
        curl_slist_free_all(headers);
        curl_easy_cleanup(curl);
        return -ENOMEM;
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); // never by way of another host
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)TOTAL_MS);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    if (code != CURLE_OK)
        return -EHOSTUNREACH;
    return status == 200 ? 0 : -EPROTO;
}

static int take(char *to, size_t size, const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    if (!value || strlen(value) >= size || strpbrk(value, "\r\n"))
        return -EINVAL;
    strcpy(to, value);
    return 0;
}

static int parse_keys(const char *text, struct fl_s3_credentials *credentials)
{
    char expires[64];
    json_t *object = json_loads(text, 0, NULL);
    int r = take(credentials->access_key, sizeof(credentials->access_key), object, "AccessKeyId");
    if (r == 0)
        r = take(credentials->secret_key, sizeof(credentials->secret_key), object,
                 "SecretAccessKey");
    if (r == 0 && json_object_get(object, "Token"))
        r = take(credentials->token, sizeof(credentials->token), object, "Token");
    if (r == 0 && take(expires, sizeof(expires), object, "Expiration") == 0)
        r = fl_iso_time(expires, &credentials->expires);
    json_decref(object);
    return r;
}

// --- containers ---

// Keys come without TLS only from this host or its link.
static bool url_allowed(const char *url)
{
    static const char *const near[] = {
        "http://localhost:", "http://localhost/",      "http://[::1]:",         "http://[::1]/",
        CONTAINER_HOST "/",  "http://169.254.170.23/", "http://[fd00:ec2::23]/"};
    if (strncmp(url, "https://", 8) == 0)
        return true;
    const char *host = url + strlen("http://");
    if (strncmp(url, "http://127.", 11) == 0 && strchr("/:", host[strspn(host, "0123456789.")]))
        return !strchr(url, '@');
    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
        if (strncmp(url, near[i], strlen(near[i])) == 0)
            return !strchr(url, '@');
    }
    return false;
}

static int authorization(char *header, size_t size)
{
    const char *path = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *said = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    char token[2048] = "";
    if (path) {
        FILE *file = fopen(path, "re");
        if (!file)
            return -errno;
        if (!fgets(token, sizeof(token), file))
            token[0] = '\0';
        fclose(file);
        token[strcspn(token, "\r\n")] = '\0';
    } else if (said && strlen(said) < sizeof(token)) {
        strcpy(token, said);
    }
    int length = *token ? snprintf(header, size, "Authorization: %s", token) : 0;
    header[length > 0 ? length : 0] = '\0';
    OPENSSL_cleanse(token, sizeof(token));
    return length < (int)size && !strpbrk(header, "\r\n") ? 0 : -EINVAL;
}

static int from_container(struct answer *answer, struct fl_s3_credentials *credentials,
                          struct fl_error *ret_error)
{
    const char *relative = getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    char url[2048];
    char header[2200];
    if (!relative && !full)
        return -ENOKEY;
    int length = relative ? snprintf(url, sizeof(url), CONTAINER_HOST "%s", relative)
                          : snprintf(url, sizeof(url), "%s", full);
    if (length >= (int)sizeof(url) || (relative && *relative != '/') || !url_allowed(url))
        return fl_fail_plain(ret_error, -EINVAL,
                             "the container's credentials are at an address that is neither "
                             "https:// nor this host's");
    int r = authorization(header, sizeof(header));
    if (r == 0)
        r = ask("GET", url, *header ? header : NULL, answer);
    if (r == 0)
        r = parse_keys(answer->text, credentials);
    OPENSSL_cleanse(header, sizeof(header));
    return r < 0 ? fl_fail(ret_error, r, "the container's credentials cannot be fetched") : 0;
}

// --- instances ---

// A role's name goes into a path.
static bool role_valid(const char *role)
{
    return *role && strspn(role, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                 "+=,.@_-") == strlen(role);
}

static int from_instance(struct answer *answer, struct fl_s3_credentials *credentials,
                         struct fl_error *ret_error)
{
    const char *disabled = getenv("AWS_EC2_METADATA_DISABLED");
    const char *said = getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *host = said && *said ? said : INSTANCE_HOST;
    char url[1024];
    char header[ANSWER_BYTES + 64];
    if (disabled && strcmp(disabled, "true") == 0)
        return -ENOKEY;
    int length = (int)strlen(host) - (host[strlen(host) - 1] == '/');
    snprintf(url, sizeof(url), "%.*s/latest/api/token", length, host);
    int r = ask("PUT", url, "X-aws-ec2-metadata-token-ttl-seconds: 21600", answer);
    if (r == -EHOSTUNREACH || (r < 0 && !said))
        return -ENOKEY;
    snprintf(header, sizeof(header), "X-aws-ec2-metadata-token: %s", answer->text);
    snprintf(url, sizeof(url), "%.*s/latest/meta-data/iam/security-credentials/", length, host);
    if (r == 0)
        r = ask("GET", url, header, answer);
    answer->text[strcspn(answer->text, "\r\n")] = '\0';
    if (r == 0)
        r = role_valid(answer->text) ? 0 : -EINVAL;
    if (r == 0) {
        snprintf(url, sizeof(url), "%.*s/latest/meta-data/iam/security-credentials/%.256s", length,
                 host, answer->text);
        r = ask("GET", url, header, answer);
    }
    if (r == 0)
        r = parse_keys(answer->text, credentials);
    OPENSSL_cleanse(header, sizeof(header));
    return r < 0 ? fl_fail(ret_error, r, "the instance's credentials cannot be fetched") : 0;
}

int fl_s3_credentials_metadata(struct fl_s3_credentials *credentials, struct fl_error *ret_error)
{
    struct answer *answer = calloc(1, sizeof(*answer));
    if (!answer)
        return fl_fail(ret_error, -ENOMEM, "cannot ask for credentials");
    int r = from_container(answer, credentials, ret_error);
    if (r == -ENOKEY)
        r = from_instance(answer, credentials, ret_error);
    OPENSSL_cleanse(answer, sizeof(*answer));
    free(answer);
    return r;
}
