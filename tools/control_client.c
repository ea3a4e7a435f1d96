// SPDX-License-Identifier: Apache-2.0
#include "tools/control_client.h"

#include <curl/curl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "tools/cli.h"
#include "tools/verb.h"

enum { TIMEOUT_S = 30, ATTEMPTS = 20, PAUSE_MS = 50 };

struct text {
    char *data;
    size_t used;
};

static size_t collect(char *data, size_t size, size_t count, void *arg)
{
    struct text *text = arg;
    char *more = realloc(text->data, text->used + size * count + 1);
    if (!more)
        return 0;
    memcpy(more + text->used, data, size * count);
    text->data = more;
    text->used += size * count;
    more[text->used] = '\0';
    return size * count;
}

static CURLcode perform(const char *control, const char *path, const char *body, struct text *text,
                        long *ret_status)
{
    char url[256];
    snprintf(url, sizeof(url), "http://localhost%s", path);
    CURL *curl = curl_easy_init();
    if (!curl)
        return CURLE_OUT_OF_MEMORY;
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, control);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, text);
    if (body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_status);
    curl_easy_cleanup(curl);
    return code;
}

static int judge(const char *verb, const char *control, long status, json_t *answer)
{
    const char *reason = json_string_value(json_object_get(answer, "error"));
    if (status >= 200 && status < 300 && answer)
        return EXIT_DONE;
    return cli_fail(verb, "the server at %s says: %s", control,
                    reason ? reason : "nothing that is understood");
}

// The engine that had accepted is gone, by an upgrade or a death. Its successor listens already.
static bool has_made_way(CURLcode code)
{
    return code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING;
}

int control_ask(const char *verb, const char *control, const char *path, const json_t *body,
                json_t **ret_answer)
{
    struct text text = {0};
    long status = 0;
    if (strlen(control) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return cli_fail(verb, "the control socket's path %s is too long", control);
    char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
    CURLcode code = perform(control, path, sent, &text, &status);
    for (unsigned i = 0; i < ATTEMPTS && !body && has_made_way(code); i++) {
        free(text.data);
        text = (struct text){0};
        poll(NULL, 0, PAUSE_MS);
        code = perform(control, path, NULL, &text, &status);
    }
    free(sent);
    if (code != CURLE_OK) {
        free(text.data);
        return cli_fail(verb, "no server answers at %s: %s", control, curl_easy_strerror(code));
    }
    json_error_t where;
    json_t *answer = json_loads(text.data ? text.data : "", 0, &where);
    free(text.data);
    int result = judge(verb, control, status, answer);
    if (result == EXIT_DONE)
        *ret_answer = answer;
    else
        json_decref(answer);
    return result;
}
