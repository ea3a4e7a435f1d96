// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/checkpoint_client.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/e2e/protocol/http.h"
#include "tests/support/server.h"

// HTTP/1.0: the events are not in chunks, and the connection ends with them.
int checkpoint_client_order(const char *control, const char *body)
{
    const struct timeval deadline = {.tv_sec = TEST_DEADLINE_MS / 1000};
    char request[2048];
    int fd = http_connect(control);
    cr_assert(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    int length = snprintf(request, sizeof(request),
                          "POST /v1/checkpoints HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s",
                          strlen(body), body);
    cr_assert_eq(send(fd, request, (size_t)length, MSG_NOSIGNAL), length);
    return fd;
}

bool checkpoint_client_reads(int fd, char line[CHECKPOINT_CLIENT_LINE])
{
    size_t used = 0;
    while (used < CHECKPOINT_CLIENT_LINE - 1 && recv(fd, line + used, 1, 0) == 1 &&
           line[used] != '\n')
        used++;
    bool whole = used < CHECKPOINT_CLIENT_LINE - 1 && line[used] == '\n';
    line[used] = '\0';
    return whole;
}

bool checkpoint_client_hears(int fd, const char *begins)
{
    char line[CHECKPOINT_CLIENT_LINE];
    while (checkpoint_client_reads(fd, line)) {
        if (strncmp(line, begins, strlen(begins)) == 0)
            return true;
        if (strstr(line, "\"failed\"") || strstr(line, "\"done\"")) {
            fprintf(stderr, "it said %s\n", line);
            return false;
        }
    }
    return false;
}

bool checkpoint_client_ends(int fd)
{
    char byte;
    bool end = recv(fd, &byte, 1, 0) == 0;
    close(fd);
    return end;
}
