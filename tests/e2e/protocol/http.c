// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/protocol/http.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/server.h"
#include "tests/support/vmm.h"

static int connect_tcp(const char *place)
{
    char host[64];
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const char *colon = strrchr(place, ':');
    bool brackets = place[0] == '[';
    snprintf(host, sizeof(host), "%.*s", (int)(colon - place) - 2 * brackets, place + brackets);
    cr_assert_eq(getaddrinfo(host, colon + 1, &hints, &found), 0, "%s", place);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        int error = errno;
        close(fd);
        fd = -1;
        errno = error;
    }
    freeaddrinfo(found);
    return fd;
}

static int connect_unix(const char *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(place) >= sizeof(address.sun_path))
        return vmm_connect(place);
    memcpy(address.sun_path, place, strlen(place));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int http_connect(const char *place)
{
    return strchr(place, '/') ? connect_unix(place) : connect_tcp(place);
}

void http_exchange(const char *place, struct http_answer *answer, const char *request,
                   size_t length)
{
    const struct timeval deadline = {.tv_sec = TEST_DEADLINE_MS / 1000};
    int fd = http_connect(place);
    size_t used = 0;
    ssize_t got;
    answer->text[0] = '\0';
    if (fd < 0)
        return;
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
    http_exchange(socket, answer, request, (size_t)length);
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
