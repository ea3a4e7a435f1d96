// SPDX-License-Identifier: Apache-2.0
#include "engine/base/tcp_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A port, from 1 to 65535; 0 if it is none.
static in_port_t read_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return 0;
    unsigned long port = strtoul(text, NULL, 10);
    return port <= UINT16_MAX ? (in_port_t)port : 0;
}

static void set_v6(struct fl_tcp_address *address, struct in6_addr host, in_port_t port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = host};
    memcpy(&address->address, &v6, sizeof(v6));
    address->size = sizeof(v6);
}

static void set_v4(struct fl_tcp_address *address, struct in_addr host, in_port_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = host};
    memcpy(&address->address, &v4, sizeof(v4));
    address->size = sizeof(v4);
}

bool fl_tcp_parse(const char *text, struct fl_tcp_address *ret_address)
{
    char host[INET6_ADDRSTRLEN];
    struct in6_addr v6;
    struct in_addr v4;
    const char *colon = strrchr(text, ':');
    in_port_t port = colon ? read_port(colon + 1) : 0;
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (!port)
        return false;
    *ret_address = (struct fl_tcp_address){.any = length == 0};
    if (length == 0) {
        set_v6(ret_address, in6addr_any, port);
        return true;
    }
    bool brackets = length > 2 && text[0] == '[' && text[length - 1] == ']';
    length -= brackets ? 2 : 0;
    if (length >= sizeof(host))
        return false;
    memcpy(host, text + brackets, length);
    host[length] = '\0';
    if (brackets && inet_pton(AF_INET6, host, &v6) == 1)
        set_v6(ret_address, v6, port);
    else if (!brackets && inet_pton(AF_INET, host, &v4) == 1)
        set_v4(ret_address, v4, port);
    else
        return false;
    return true;
}

// What is at every address, on a host whose kernel has no IPv6.
static struct fl_tcp_address as_v4(const struct fl_tcp_address *any)
{
    struct sockaddr_in6 v6;
    struct fl_tcp_address v4 = {.any = true};
    memcpy(&v6, &any->address, sizeof(v6));
    set_v4(&v4, (struct in_addr){htonl(INADDR_ANY)}, ntohs(v6.sin6_port));
    return v4;
}

// SO_REUSEADDR: connections of a server before that are still being closed are no hindrance. A
// socket that listens is.
static int listen_at(const struct fl_tcp_address *address)
{
    static const int yes = 1;
    int v6_only = !address->any;
    int fd =
        socket(address->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (fd < 0)
        return -errno;
    int failed = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (!failed && address->address.ss_family == AF_INET6)
        failed = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
    if (!failed)
        failed = bind(fd, (const struct sockaddr *)&address->address, address->size);
    if (!failed)
        failed = listen(fd, SOMAXCONN);
    if (!failed)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

int fl_tcp_listen(const struct fl_tcp_address *address)
{
    int fd = listen_at(address);
    if (address->any && (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)) {
        struct fl_tcp_address v4 = as_v4(address);
        fd = listen_at(&v4);
    }
    return fd;
}

static bool is_bound_to(const struct sockaddr_storage *bound, const struct fl_tcp_address *address)
{
    struct sockaddr_in6 v6[2];
    struct sockaddr_in v4[2];
    if (bound->ss_family != address->address.ss_family)
        return false;
    if (bound->ss_family == AF_INET) {
        memcpy(&v4[0], bound, sizeof(v4[0]));
        memcpy(&v4[1], &address->address, sizeof(v4[1]));
        return v4[0].sin_port == v4[1].sin_port && v4[0].sin_addr.s_addr == v4[1].sin_addr.s_addr;
    }
    memcpy(&v6[0], bound, sizeof(v6[0]));
    memcpy(&v6[1], &address->address, sizeof(v6[1]));
    return v6[0].sin6_port == v6[1].sin6_port &&
           memcmp(&v6[0].sin6_addr, &v6[1].sin6_addr, sizeof(v6[0].sin6_addr)) == 0;
}

static in_port_t port_of(const struct sockaddr_storage *address)
{
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;
    memcpy(&v6, address, sizeof(v6));
    memcpy(&v4, address, sizeof(v4));
    if (address->ss_family == AF_INET6)
        return v6.sin6_port;
    return address->ss_family == AF_INET ? v4.sin_port : 0;
}

bool fl_tcp_has_port(int fd, const struct fl_tcp_address *address)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof(bound);
    return getsockname(fd, (struct sockaddr *)&bound, &size) == 0 &&
           port_of(&bound) == port_of(&address->address);
}

bool fl_tcp_is_at(int fd, const struct fl_tcp_address *address)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof(bound);
    int only = 0;
    socklen_t only_size = sizeof(only);
    if (getsockname(fd, (struct sockaddr *)&bound, &size) != 0)
        return false;
    struct fl_tcp_address v4 = address->any ? as_v4(address) : *address;
    if (address->any && is_bound_to(&bound, &v4))
        return true;
    if (!is_bound_to(&bound, address))
        return false;
    // [::] alone is another place than every address.
    return bound.ss_family != AF_INET6 ||
           (getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &only_size) == 0 &&
            (only != 0) == !address->any);
}
