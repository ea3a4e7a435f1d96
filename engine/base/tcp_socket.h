// SPDX-License-Identifier: Apache-2.0
//
// Listening at an address and port of TCP. Any thread; nothing waits. Source: tcp(7), ipv6(7).
#ifndef FAULTLINE_BASE_TCP_SOCKET_H
#define FAULTLINE_BASE_TCP_SOCKET_H

#include <stdbool.h>
#include <sys/socket.h>

struct fl_tcp_address {
    struct sockaddr_storage address;
    socklen_t size;
    bool any; // every address of the host, of IPv6 and of IPv4
};

// Reads "127.0.0.1:9642", "[::1]:9642", or ":9642" for every address of the host. A name is none:
// what it means may change while the server runs. False if it is none of these.
bool fl_tcp_parse(const char *text, struct fl_tcp_address *ret_address);
// A non-blocking, close-on-exec socket that listens there, or -errno: -EADDRINUSE, if another
// process uses the port, -EADDRNOTAVAIL, if the host has no such address.
int fl_tcp_listen(const struct fl_tcp_address *address);
// True if the socket is of TCP and has this port, at whatever address.
bool fl_tcp_has_port(int fd, const struct fl_tcp_address *address);
// True if the socket is one that fl_tcp_listen() could have returned.
bool fl_tcp_is_at(int fd, const struct fl_tcp_address *address);

#endif
