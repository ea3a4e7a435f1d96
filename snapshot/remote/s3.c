// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/s3.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/s3_internal.h"

static const char *first_of(const char *said, const char *variable, const char *other)
{
    const char *value = said ? said : getenv(variable);
    if (!(value && *value) && other)
        value = getenv(other);
    return value && *value ? value : NULL;
}

static int copy(char **to, const char *text)
{
    *to = text ? strdup(text) : NULL;
    return text && !*to ? -ENOMEM : 0;
}

static int fill(struct fl_s3 *s3, const struct fl_s3_config *config,
                const struct fl_s3_place *place, struct fl_error *ret_error)
{
    const char *region = first_of(config->region, "AWS_REGION", "AWS_DEFAULT_REGION");
    const char *endpoint = first_of(config->endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
    s3->place = *place;
    s3->timeout_ms = config->timeout_ms;
    s3->retry_for_ms = config->retry_for_ms;
    s3->cancelled = config->cancelled;
    snprintf(s3->name, sizeof(s3->name), "s3://%s/%s", place->bucket, place->prefix);
    s3->name[strlen(s3->name) - 1] = '\0';
    s3->credentials = fl_s3_credentials_new();
    if (!s3->credentials || copy(&s3->region, region ? region : "us-east-1") < 0 ||
        copy(&s3->ca_file, first_of(config->ca_file, "AWS_CA_BUNDLE", NULL)) < 0 ||
        copy(&s3->credentials_file, config->source.file) < 0 ||
        copy(&s3->profile, config->source.profile) < 0)
        return fl_fail(ret_error, -ENOMEM, "cannot open %s", s3->name);
    int r = fl_s3_find_server(endpoint, s3->region, place->bucket, config->style, &s3->server,
                              ret_error);
    return r < 0 ? r : fl_s3_credentials_find(&config->source, s3->credentials, ret_error);
}

int fl_s3_open(const struct fl_s3_config *config, const struct fl_s3_place *place,
               struct fl_s3 **ret_s3, struct fl_error *ret_error)
{
    struct fl_s3 *s3 = calloc(1, sizeof(*s3));
    if (!s3 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(s3);
        return fl_fail(ret_error, -ENOMEM, "cannot open the bucket %s", place->bucket);
    }
    pthread_mutex_init(&s3->lock, NULL);
    int r = fill(s3, config, place, ret_error);
    if (r < 0)
        fl_s3_close(s3);
    else
        *ret_s3 = s3;
    return r;
}

static void free_link(struct fl_s3_link *link)
{
    curl_easy_cleanup(link->curl);
    free(link);
}

void fl_s3_close(struct fl_s3 *s3)
{
    if (!s3)
        return;
    for (unsigned i = 0; i < s3->kept_count; i++)
        free_link(s3->kept[i]);
    fl_s3_credentials_free(s3->credentials);
    pthread_mutex_destroy(&s3->lock);
    free(s3->region);
    free(s3->ca_file);
    free(s3->credentials_file);
    free(s3->profile);
    free(s3);
    curl_global_cleanup();
}

int fl_s3_connect(struct fl_s3 *s3, struct fl_s3_link **ret_link, struct fl_error *ret_error)
{
    pthread_mutex_lock(&s3->lock);
    struct fl_s3_link *link = s3->kept_count > 0 ? s3->kept[--s3->kept_count] : NULL;
    pthread_mutex_unlock(&s3->lock);
    if (link) {
        *ret_link = link;
        return 0;
    }
    link = calloc(1, sizeof(*link));
    if (link)
        link->curl = curl_easy_init();
    if (!link || !link->curl) {
        free(link);
        return fl_fail(ret_error, -ENOMEM, "cannot connect to %s", s3->name);
    }
    link->s3 = s3;
    *ret_link = link;
    return 0;
}

void fl_s3_disconnect(struct fl_s3_link *link)
{
    if (!link)
        return;
    struct fl_s3 *s3 = link->s3;
    pthread_mutex_lock(&s3->lock);
    bool kept = s3->kept_count < FL_S3_LINKS_KEPT;
    if (kept)
        s3->kept[s3->kept_count++] = link;
    pthread_mutex_unlock(&s3->lock);
    if (!kept)
        free_link(link);
}

const char *fl_s3_name(const struct fl_s3 *s3)
{
    return s3->name;
}
