// SPDX-License-Identifier: Apache-2.0
//
// The sockets of its own that an engine leaves to its successor: a client that has connected
// already is not lost, and one that connects finds a socket at any time. The keeper holds the same.
// Control thread.
#ifndef FAULTLINE_LINK_INHERITED_SOCKETS_H
#define FAULTLINE_LINK_INHERITED_SOCKETS_H

#include <stdint.h>

#include "engine/base/tcp_socket.h"
#include "engine/base/unix_socket.h"
#include "engine/link/channel.h"

struct fl_keeper_link;

// Owns its descriptors, but for those that fl_inherited_sockets_forget() is called for. An engine
// that ends leaves them open: the keeper has them, or the process ends.
struct fl_inherited_sockets {
    struct fl_keeper_link *keeper_link; // NULL: there is none to hold them
    int fd[FL_INHERITED_SOCKETS];       // by enum fl_inherited_socket; -1: none
};

// There are none yet.
void fl_inherited_sockets_init(struct fl_inherited_sockets *sockets);
// A predecessor's, of the keeper's record of that id. Takes *fd, which is -1 then, unless it is of
// no kind that this version knows.
void fl_inherited_sockets_take(struct fl_inherited_sockets *sockets, uint64_t id, int *fd);

// Listens at a path: with the socket that there is, if the path leads to it, else with a new one
// that takes its place. 0 or -errno of fl_socket_listen().
int fl_inherited_sockets_listen(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id,
                                const char *path, int type, const struct fl_socket_access *access,
                                struct fl_listening *ret_listening);
// The same at an address of TCP. The socket, or -errno of fl_tcp_listen(): -EADDRINUSE also if the
// one that there was had the port, and a later attempt will do.
int fl_inherited_sockets_listen_tcp(struct fl_inherited_sockets *sockets,
                                    enum fl_inherited_socket id,
                                    const struct fl_tcp_address *address);
// Takes a descriptor in the place of the one that there was, which is closed; the file that it was
// bound to is removed.
void fl_inherited_sockets_replace(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id,
                                  int fd);
// The caller has closed it, or will.
void fl_inherited_sockets_forget(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id);
// A predecessor's that this server is not to have: it goes, with its file and its record.
void fl_inherited_sockets_drop(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id);
// Has a new keeper hold them all.
void fl_inherited_sockets_keep(const struct fl_inherited_sockets *sockets);

#endif
