// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/tcp_socket.h"

static in_port_t port_of(int fd)
{
    struct sockaddr_storage bound = {0};
    struct sockaddr_in v4;
    socklen_t size = sizeof(bound);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
    memcpy(&v4, &bound, sizeof(v4)); // the port stands at the same place in IPv6
    return ntohs(v4.sin_port);
}

// One that is free; another process may take it before we do.
static in_port_t free_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (const struct sockaddr *)&any, sizeof(any)), 0);
    in_port_t port = port_of(fd);
    close(fd);
    return port;
}

static struct fl_tcp_address parse(const char *host, in_port_t port)
{
    struct fl_tcp_address address;
    char text[64];
    snprintf(text, sizeof(text), "%s:%u", host, port);
    cr_assert(fl_tcp_parse(text, &address), "%s", text);
    return address;
}

Test(tcp_socket, reads_addresses_and_nothing_else)
{
    static const char *const good[] = {"127.0.0.1:1", "0.0.0.0:65535", "[::1]:9642", "[::]:80",
                                       ":9642"};
    static const char *const bad[] = {"",           ":",           "1",          "a:1",
                                      "::1:1",      "[::1]",       "[::1]1",     "[]:1",
                                      "1.2.3:1",    "1.2.3.4:0",   "1.2.3.4:-1", "1.2.3.4:65536",
                                      "1.2.3.4:1 ", "[1.2.3.4]:1", "[::1%lo]:1", "[::1:1"};
    struct fl_tcp_address address;
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_assert(fl_tcp_parse(good[i], &address), "%s", good[i]);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not(fl_tcp_parse(bad[i], &address), "%s", bad[i]);
}

Test(tcp_socket, knows_its_own_and_is_alone_at_its_port)
{
    in_port_t port = free_port();
    struct fl_tcp_address here = parse("127.0.0.1", port);
    struct fl_tcp_address other = parse("127.0.0.2", port);
    struct fl_tcp_address next = parse("127.0.0.1", (in_port_t)(port ^ 1));
    struct fl_tcp_address everywhere = parse("", port);
    struct fl_tcp_address all_v6 = parse("[::]", port);
    int fd = fl_tcp_listen(&here);
    cr_assert_geq(fd, 0, "%s", strerror(-fd));
    cr_assert(fl_tcp_is_at(fd, &here));
    cr_assert(!fl_tcp_is_at(fd, &other) && !fl_tcp_is_at(fd, &next));
    cr_assert(!fl_tcp_is_at(fd, &everywhere) && !fl_tcp_is_at(fd, &all_v6));
    cr_assert_eq(fl_tcp_listen(&here), -EADDRINUSE);
    cr_assert_eq(fl_tcp_listen(&everywhere), -EADDRINUSE);
    close(fd);
    fd = fl_tcp_listen(&everywhere);
    cr_assert_geq(fd, 0, "%s", strerror(-fd));
    cr_assert(fl_tcp_is_at(fd, &everywhere) && !fl_tcp_is_at(fd, &here));
    cr_assert(!fl_tcp_is_at(fd, &all_v6), "that is all of IPv6 alone");
    close(fd);
    struct fl_tcp_address foreign = parse("192.0.2.1", port); // of no host
    cr_assert_eq(fl_tcp_listen(&foreign), -EADDRNOTAVAIL);
}
