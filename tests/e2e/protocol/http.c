// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/protocol/http.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/support/server.h"
#include "tests/support/vmm.h"

static void exchange(const char *socket, struct http_answer *answer, const char *request,
                     size_t length)
{
    const struct timeval deadline = {.tv_sec = TEST_DEADLINE_MS / 1000};
    int fd = vmm_connect(socket);
    size_t used = 0;
    ssize_t got;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    for (size_t sent = 0;
         sent < length && (got = send(fd, request + sent, length - sent, MSG_NOSIGNAL)) > 0;)
        sent += (size_t)got;
    while (used + 1 < sizeof(answer->text) &&
           (got = recv(fd, answer->text + used, sizeof(answer->text) - used - 1, 0)) > 0)
        used += (size_t)got;
    close(fd);
    answer->text[used] = '\0';
}

int http_ask(const char *socket, struct http_answer *answer, const char *method, const char *path,
             const char *body)
{
    size_t room = strlen(path) + strlen(body) + 512;
    char *request = malloc(room);
    cr_assert_not_null(request);
    int length = snprintf(request, room,
                          "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                          "Content-Length: %zu\r\n\r\n%s",
                          method, path, strlen(body), body);
    exchange(socket, answer, request, (size_t)length);
    free(request);
    answer->status = 0;
    sscanf(answer->text, "HTTP/1.1 %d", &answer->status);
    const char *end = strstr(answer->text, "\r\n\r\n");
    answer->body = end ? end + 4 : "";
    return answer->status;
}

bool http_says(const struct http_answer *answer, const char *sentence)
{
    json_t *body = json_loads(answer->body, 0, NULL);
    const char *error = json_string_value(json_object_get(body, "error"));
    bool same = error && strcmp(error, sentence) == 0;
    if (!same)
        fprintf(stderr, "not '%s' but: %s\n", sentence, answer->text);
    json_decref(body);
    return same;
}
