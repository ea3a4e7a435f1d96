// SPDX-License-Identifier: Apache-2.0
//
// Maps an image's template. The handler sends a greeting with the template's descriptor; the client
// maps it, and then sends the same handshake as any other client.
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/client.h"
#include "client/handshake.h"
#include "client/regions.h"

enum { GREETING_TEXT = 511 };

// A greeting is one line of JSON and comes with the descriptor. A handler that has no template
// sends a line with an error instead, and no descriptor.
static int read_greeting(const char *text, int fd, uint64_t *ret_bytes)
{
    static const char key[] = "\"bytes\":";
    const char *at = strstr(text, key);
    char *end = NULL;
    if (fd < 0)
        return strstr(text, "\"error\"") ? -ENOENT : -EPROTO;
    *ret_bytes = at ? strtoull(at + sizeof(key) - 1, &end, 10) : 0;
    return *ret_bytes > 0 ? 0 : -EPROTO;
}

static int take_descriptor(struct msghdr *message)
{
    int fd = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

// Returns the template's descriptor, which can only be read, or -errno.
static int receive_template(int socket, uint64_t *ret_bytes)
{
    char text[GREETING_TEXT + 1] = "";
    struct timeval limit = {.tv_sec = FL_CLIENT_ANSWER_SECONDS};
    struct iovec part = {.iov_base = text, .iov_len = GREETING_TEXT};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0)
        return -errno;
    ssize_t got = 0;
    do {
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    text[got] = '\0';
    int fd = take_descriptor(&message);
    bool no_room = fd < 0 && message.msg_flags & MSG_CTRUNC; // in this process's own table
    int error = no_room ? -EMFILE : read_greeting(text, fd, ret_bytes);
    if (error && fd >= 0)
        close(fd);
    return error ? error : fd;
}

static int map_part(int fd, uint64_t bytes, struct fl_client_region *region)
{
    int flags = MAP_PRIVATE | MAP_NORESERVE | (region->address ? MAP_FIXED : 0);
    if (region->offset + region->bytes > bytes)
        return -EINVAL;
    void *address =
        fl_client_map_unfilled(region->address, region->bytes, flags, fd, region->offset);
    if (address == MAP_FAILED)
        return -errno;
    region->address = address;
    return 0;
}

// Returns 0 or -errno. In both cases *ret_mapped is the number of regions that are mapped.
static int map_parts(struct fl_client *client, size_t *ret_mapped)
{
    uint64_t bytes = 0;
    int fd = receive_template(client->socket, &bytes);
    int error = fd < 0 ? fd : 0;
    while (!error && *ret_mapped < client->count) {
        error = map_part(fd, bytes, &client->regions[*ret_mapped]);
        *ret_mapped += !error;
    }
    if (fd >= 0)
        close(fd);
    return error ? error : fl_client_check_places(client->regions, client->count, FL_CLIENT_PAGE);
}

int fl_client_map_template(const char *socket_path, struct fl_client_region *regions, size_t count,
                           struct fl_client **ret_client)
{
    size_t mapped = 0;
    int error = fl_client_check_sizes(regions, count, FL_CLIENT_PAGE);
    if (error)
        return error;
    struct fl_client *client = fl_client_new(regions, count, FL_CLIENT_PAGE);
    if (!client)
        return -ENOMEM;
    client->socket = fl_client_connect(socket_path);
    error = client->socket < 0 ? client->socket : map_parts(client, &mapped);
    if (!error)
        error = fl_client_attach(client);
    if (error)
        fl_client_unmap_memory(client->regions, mapped);
    else
        memcpy(regions, client->regions, count * sizeof(*regions));
    return fl_client_finish(client, error, ret_client);
}
