// SPDX-License-Identifier: Apache-2.0
//
// One attempt: the request is signed, sent by libcurl, and what comes back is taken in.
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "snapshot/remote/s3_internal.h"
#include "snapshot/remote/s3_sign.h"
#include "snapshot/remote/s3_text.h"

enum { ERROR_TEXT_BYTES = 65536, HEADERS_MAX = 8, CONNECT_MS = 10000, SLOW_S = 300 };

struct exchange {
    struct fl_s3_link *link;
    const struct fl_s3_request *request;
    struct fl_s3_answer *answer;
    size_t sent;
    bool no_memory;
    uint64_t moved; // bytes, both ways
    uint64_t moved_at_ms;
    uint64_t patience_ms;
};

void fl_s3_answer_free(struct fl_s3_answer *answer)
{
    free(answer->text);
    *answer = (struct fl_s3_answer){.text = NULL};
}

// --- what libcurl calls ---

static size_t keep_text(struct exchange *exchange, const char *bytes, size_t count, size_t limit)
{
    struct fl_s3_answer *answer = exchange->answer;
    if (answer->text_bytes + count > limit) {
        answer->too_long = true;
        return 0;
    }
    char *grown = realloc(answer->text, answer->text_bytes + count + 1);
    if (!grown) {
        exchange->no_memory = true;
        return 0;
    }
    memcpy(grown + answer->text_bytes, bytes, count);
    answer->text = grown;
    answer->text_bytes += count;
    grown[answer->text_bytes] = '\0';
    return count;
}

static size_t on_body(char *bytes, size_t one, size_t count, void *arg)
{
    struct exchange *exchange = arg;
    const struct fl_s3_request *request = exchange->request;
    struct fl_s3_answer *answer = exchange->answer;
    long status = 0;
    (void)one;
    curl_easy_getinfo(exchange->link->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status / 100 != 2)
        return keep_text(exchange, bytes, count, ERROR_TEXT_BYTES);
    if (!request->into)
        return keep_text(exchange, bytes, count, request->bytes);
    if (count > request->bytes - answer->got) {
        answer->too_long = true;
        return 0;
    }
    memcpy((char *)request->into + answer->got, bytes, count);
    answer->got += count;
    return count;
}

static bool is_header(const char *line, const char *name, const char **ret_value)
{
    size_t length = strlen(name);
    if (strncasecmp(line, name, length) != 0 || line[length] != ':')
        return false;
    *ret_value = line + length + 1 + strspn(line + length + 1, " \t");
    return true;
}

static size_t on_header(char *bytes, size_t one, size_t count, void *arg)
{
    struct exchange *exchange = arg;
    struct fl_s3_answer *answer = exchange->answer;
    char line[512];
    const char *value;
    (void)one;
    snprintf(line, sizeof(line), "%.*s", (int)count, bytes);
    line[strcspn(line, "\r\n")] = '\0';
    unsigned long long first;
    unsigned long long last;
    unsigned long long total;
    if (is_header(line, "etag", &value)) {
        snprintf(answer->etag, sizeof(answer->etag), "%s", value);
    } else if (is_header(line, "content-range", &value)) {
        answer->has_range = sscanf(value, "bytes %llu-%llu/%llu", &first, &last, &total) == 3;
        if (answer->has_range) {
            answer->range_first = first;
            answer->range_last = last;
            answer->range_total = total;
        }
    } else if (is_header(line, "content-length", &value)) {
        answer->has_length = true;
        answer->length = strtoull(value, NULL, 10);
    } else if (is_header(line, "date", &value)) {
        answer->date = curl_getdate(value, NULL);
        answer->date = answer->date < 0 ? 0 : answer->date;
    } else if (is_header(line, "retry-after", &value)) {
        answer->retry_after = strtol(value, NULL, 10);
    }
    return count;
}

static size_t on_send(char *to, size_t one, size_t count, void *arg)
{
    struct exchange *exchange = arg;
    size_t left = exchange->request->body_bytes - exchange->sent;
    size_t bytes = one * count < left ? one * count : left;
    if (bytes > 0)
        memcpy(to, (const char *)exchange->request->body + exchange->sent, bytes);
    exchange->sent += bytes;
    return bytes;
}

// libcurl sends the body anew, say if a connection that it kept was closed.
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct exchange *exchange = arg;
    if (origin != SEEK_SET || offset < 0 || (size_t)offset > exchange->request->body_bytes)
        return CURL_SEEKFUNC_FAIL;
    exchange->sent = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

static bool is_cancelled(const struct exchange *exchange)
{
    const struct fl_s3 *s3 = exchange->link->s3;
    return s3->cancelled && !exchange->request->anyway && s3->cancelled();
}

// Called at least once a second.
static int on_progress(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    struct exchange *exchange = arg;
    uint64_t now = fl_s3_now_ms();
    (void)down_total;
    (void)up_total;
    if (is_cancelled(exchange))
        return 1;
    if ((uint64_t)(down + up) != exchange->moved) {
        exchange->moved = (uint64_t)(down + up);
        exchange->moved_at_ms = now;
    }
    return now - exchange->moved_at_ms > exchange->patience_ms;
}

// --- the request ---

// Keys that are about to expire are fetched anew. Keys that cannot be are used while they last.
static void copy_credentials(struct fl_s3 *s3, struct fl_s3_credentials *to)
{
    struct fl_s3_source source = {.file = s3->credentials_file, .profile = s3->profile};
    enum { BEFORE_S = 300 };
    pthread_mutex_lock(&s3->lock);
    time_t now = time(NULL) + s3->skew; // of the server
    if (s3->credentials->expires != 0 && now + BEFORE_S > s3->credentials->expires &&
        fl_s3_credentials_find(&source, to, NULL) == 0)
        memcpy(s3->credentials, to, sizeof(*to));
    memcpy(to, s3->credentials, sizeof(*to));
    pthread_mutex_unlock(&s3->lock);
}

struct head {
    char path[1600];
    char hash[FL_HEX_BYTES];
    char md5[32];
    char date[FL_AMZ_DATE_BYTES];
    char range[64];
    struct fl_s3_header signed_[HEADERS_MAX]; // sorted by name
    size_t count;
    char authorization[FL_S3_AUTHORIZATION_BYTES];
};

static int make_path(const struct fl_s3 *s3, const struct fl_s3_request *request, struct head *head)
{
    char key[1100] = "";
    if (request->key &&
        snprintf(key, sizeof(key), "%s%s", s3->place.prefix, request->key) >= (int)sizeof(key))
        return -ENAMETOOLONG;
    char *encoded = fl_s3_encode(key, true);
    if (!encoded)
        return -ENOMEM;
    int length = snprintf(head->path, sizeof(head->path), "%s/%s", s3->server.base, encoded);
    free(encoded);
    return length >= (int)sizeof(head->path) ? -ENAMETOOLONG : 0;
}

static void add(struct head *head, const char *name, const char *value)
{
    head->signed_[head->count++] = (struct fl_s3_header){name, value};
}

static int make_head(struct fl_s3 *s3, const struct fl_s3_request *request,
                     const struct fl_s3_credentials *keys, struct head *head)
{
    int r = make_path(s3, request, head);
    if (r == 0)
        r = fl_sha256_hex(request->body, request->body_bytes, head->hash);
    if (r < 0)
        return r;
    fl_amz_date(time(NULL) + s3->skew, head->date);
    if (request->body && fl_md5_base64(request->body, request->body_bytes, head->md5) == 0)
        add(head, "content-md5", head->md5);
    add(head, "host", s3->server.host);
    if (request->new_only)
        add(head, "if-none-match", "*");
    if (request->ranged) {
        snprintf(head->range, sizeof(head->range), "bytes=%llu-%llu",
                 (unsigned long long)request->offset,
                 (unsigned long long)(request->offset + request->bytes - 1));
        add(head, "range", head->range);
    }
    add(head, "x-amz-content-sha256", head->hash);
    add(head, "x-amz-date", head->date);
    if (*keys->token)
        add(head, "x-amz-security-token", keys->token);
    struct fl_s3_to_sign what = {
        .method = request->method,
        .path = head->path,
        .query = request->query,
        .headers = head->signed_,
        .headers_count = head->count,
        .body_hash = head->hash,
        .date = head->date,
        .region = s3->region,
        .service = "s3",
    };
    return fl_s3_sign(&what, keys->access_key, keys->secret_key, head->authorization);
}

static int append(struct curl_slist **list, const char *name, const char *value)
{
    char *line = NULL;
    if (asprintf(&line, "%s: %s", name, value) < 0)
        return -ENOMEM;
    struct curl_slist *longer = curl_slist_append(*list, line);
    free(line);
    if (!longer)
        return -ENOMEM;
    *list = longer;
    return 0;
}

static int make_list(const struct fl_s3_request *request, const struct head *head,
                     struct curl_slist **list)
{
    int r = append(list, "authorization", head->authorization);
    for (size_t i = 0; i < head->count && r == 0; i++)
        r = append(list, head->signed_[i].name, head->signed_[i].value);
    // A header without a value is one that libcurl leaves out.
    struct curl_slist *longer = r == 0 ? curl_slist_append(*list, "Expect:") : NULL;
    if (longer && request->body)
        longer = curl_slist_append(longer, "Content-Type: application/octet-stream");
    return longer ? 0 : -ENOMEM;
}

static void set_transport(CURL *curl, const struct fl_s3 *s3, struct exchange *exchange)
{
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
    if (s3->ca_file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, s3->ca_file);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, exchange);
}

static void set_method(CURL *curl, const struct fl_s3_request *request, struct exchange *exchange)
{
    if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    } else if (request->body) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(curl, CURLOPT_READDATA, exchange);
        curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(curl, CURLOPT_SEEKDATA, exchange);
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_bytes);
    } else if (strcmp(request->method, "GET") != 0) {
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
    }
}

// What libcurl says, as errno.
static int perform(CURL *curl, struct exchange *exchange, char why[FL_S3_WHY_BYTES])
{
    why[0] = '\0';
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &exchange->answer->status);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && exchange->answer->too_long))
        return 0;
    if (exchange->no_memory || code == CURLE_OUT_OF_MEMORY)
        return -ENOMEM;
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        bool cancelled = is_cancelled(exchange);
        snprintf(why, FL_S3_WHY_BYTES, "%s",
                 cancelled ? "interrupted" : "nothing came for too long");
        return cancelled ? -ECANCELED : -ETIMEDOUT;
    }
    if (why[0] == '\0')
        snprintf(why, FL_S3_WHY_BYTES, "%s", curl_easy_strerror(code));
    // These will not be better at another time.
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
        code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
        return -EACCES;
    return -EIO;
}

static int send_request(struct fl_s3_link *link, const struct fl_s3_request *request,
                        const struct head *head, struct exchange *exchange,
                        char why[FL_S3_WHY_BYTES])
{
    struct fl_s3 *s3 = link->s3;
    struct curl_slist *list = NULL;
    char *url = NULL;
    int r = make_list(request, head, &list);
    if (r == 0 && asprintf(&url, "%s%s%s%s", s3->server.origin, head->path,
                           *request->query ? "?" : "", request->query) < 0) {
        url = NULL;
        r = -ENOMEM;
    }
    if (r == 0) {
        curl_easy_reset(link->curl); // keeps its connections
        set_transport(link->curl, s3, exchange);
        set_method(link->curl, request, exchange);
        curl_easy_setopt(link->curl, CURLOPT_URL, url);
        curl_easy_setopt(link->curl, CURLOPT_HTTPHEADER, list);
        r = perform(link->curl, exchange, why);
        curl_easy_setopt(link->curl, CURLOPT_HTTPHEADER, NULL);
    }
    for (struct curl_slist *item = list; item; item = item->next)
        OPENSSL_cleanse(item->data, strlen(item->data));
    curl_slist_free_all(list);
    free(url);
    return r;
}

int fl_s3_exchange(struct fl_s3_link *link, const struct fl_s3_request *request,
                   struct fl_s3_answer *answer, char ret_why[FL_S3_WHY_BYTES])
{
    struct exchange exchange = {
        .link = link,
        .request = request,
        .answer = answer,
        .moved_at_ms = fl_s3_now_ms(),
        .patience_ms = link->s3->timeout_ms,
    };
    struct head *head = calloc(1, sizeof(*head));
    struct fl_s3_credentials *keys = fl_s3_credentials_new();
    *answer = (struct fl_s3_answer){.text = NULL};
    ret_why[0] = '\0';
    if (request->slow && exchange.patience_ms < SLOW_S * UINT64_C(1000))
        exchange.patience_ms = SLOW_S * UINT64_C(1000);
    int r = head && keys ? 0 : -ENOMEM;
    if (r == 0) {
        copy_credentials(link->s3, keys);
        r = make_head(link->s3, request, keys, head);
    }
    if (r == 0)
        r = send_request(link, request, head, &exchange, ret_why);
    if (answer->date != 0)
        link->s3->date = answer->date;
    fl_s3_credentials_free(keys);
    free(head);
    if (r < 0 && ret_why[0] == '\0')
        snprintf(ret_why, FL_S3_WHY_BYTES, "%s", strerror(-r));
    return r;
}
