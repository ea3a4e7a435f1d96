// SPDX-License-Identifier: Apache-2.0
#include "bench/load/mini_api.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS = 8, REQUEST = 16384 };

struct connection {
    int fd; // -1: free
    size_t used;
    char text[REQUEST];
};

int mini_api_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, CONNECTIONS) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static size_t body_length(const char *head)
{
    static const char name[] = "\r\nContent-Length:";
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line, name, sizeof(name) - 1) == 0)
            return strtoul(line + sizeof(name) - 1, NULL, 10);
    }
    return 0;
}

static bool send_all(int fd, const char *text, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t sent = send(fd, text + done, length - done, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        done += (size_t)sent;
    }
    return true;
}

static bool send_answer(int fd, int status, const char *reply)
{
    static char text[MINI_API_TEXT + 256];
    int length = snprintf(text, sizeof(text),
                          "HTTP/1.1 %d %s\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
                          "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          status, status < 300 ? "OK" : "Bad Request", strlen(reply), reply);
    return send_all(fd, text, (size_t)length);
}

// Splits the head into its words and answers. The body ends with a NUL.
static bool answer_one(struct connection *connection, char *body, mini_api_answer *answer,
                       void *context)
{
    static char reply[MINI_API_TEXT];
    char *rest = NULL;
    struct mini_request request = {.body = body};
    request.method = strtok_r(connection->text, " \r\n", &rest);
    request.path = strtok_r(NULL, " \r\n", &rest);
    if (!request.method || !request.path)
        return false;
    reply[0] = '\0';
    int status = answer(context, &request, reply);
    return send_answer(connection->fd, status, reply);
}

// Answers the requests that are there as a whole, in their order: a client need not wait for the
// answer to one before it sends the next. False: the connection is to be closed.
static bool answer_whole(struct connection *connection, mini_api_answer *answer, void *context)
{
    static char body[REQUEST];
    for (;;) {
        connection->text[connection->used] = '\0';
        char *end = strstr(connection->text, "\r\n\r\n");
        if (!end)
            return connection->used + 1 < REQUEST;
        size_t head = (size_t)(end + 4 - connection->text);
        *end = '\0';
        size_t whole = head + body_length(connection->text);
        *end = '\r';
        if (whole >= REQUEST)
            return false;
        if (connection->used < whole)
            return true;
        memcpy(body, connection->text + head, whole - head);
        body[whole - head] = '\0';
        if (!answer_one(connection, body, answer, context))
            return false;
        memmove(connection->text, connection->text + whole, connection->used - whole);
        connection->used -= whole;
    }
}

static void hear(struct connection *connection, mini_api_answer *answer, void *context)
{
    ssize_t got = recv(connection->fd, connection->text + connection->used,
                       REQUEST - 1 - connection->used, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        connection->used += (size_t)got;
    if (got <= 0 || !answer_whole(connection, answer, context)) {
        close(connection->fd);
        connection->fd = -1;
    }
}

static void take_connection(int listener, struct connection *connection)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; fd >= 0 && i < CONNECTIONS; i++) {
        if (connection[i].fd < 0) {
            connection[i].fd = fd;
            connection[i].used = 0;
            return;
        }
    }
    if (fd >= 0)
        close(fd);
}

int mini_api_serve(int listener, mini_api_answer *answer, void *context)
{
    static struct connection connection[CONNECTIONS];
    struct pollfd wait[CONNECTIONS + 1];
    for (unsigned i = 0; i < CONNECTIONS; i++)
        connection[i].fd = -1;
    for (;;) {
        for (unsigned i = 0; i < CONNECTIONS; i++)
            wait[i] = (struct pollfd){.fd = connection[i].fd, .events = POLLIN};
        wait[CONNECTIONS] = (struct pollfd){.fd = listener, .events = POLLIN};
        if (poll(wait, CONNECTIONS + 1, -1) < 0 && errno != EINTR)
            return -errno;
        for (unsigned i = 0; i < CONNECTIONS; i++) {
            if (wait[i].revents)
                hear(&connection[i], answer, context);
        }
        if (wait[CONNECTIONS].revents)
            take_connection(listener, connection);
    }
}
