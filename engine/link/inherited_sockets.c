// SPDX-License-Identifier: Apache-2.0
#include "engine/link/inherited_sockets.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/link/keeper_link.h"

void fl_inherited_sockets_init(struct fl_inherited_sockets *sockets)
{
    sockets->keeper_link = NULL;
    for (int id = 0; id < FL_INHERITED_SOCKETS; id++)
        sockets->fd[id] = -1;
}

void fl_inherited_sockets_take(struct fl_inherited_sockets *sockets, uint64_t id, int *fd)
{
    if (id < FL_SOCKET_CONTROL || id >= FL_INHERITED_SOCKETS)
        return;
    sockets->fd[id] = *fd;
    *fd = -1;
}

static int family_of(int fd)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof(bound);
    return getsockname(fd, (struct sockaddr *)&bound, &size) == 0 ? bound.ss_family : AF_UNSPEC;
}

// A socket of another process may stand in its place. Without the right to ask what it was bound to
// it is believed to be ours.
static bool socket_is_at(const char *path, int fd, struct fl_listening *ret_listening)
{
    struct stat status;
    if (family_of(fd) != AF_UNIX || lstat(path, &status) != 0 || !S_ISSOCK(status.st_mode))
        return false;
    if (fl_socket_identify(fd, ret_listening) == 0)
        return fl_socket_is_at(path, ret_listening);
    *ret_listening = (struct fl_listening){fd, status.st_dev, status.st_ino};
    return true;
}

int fl_inherited_sockets_listen(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id,
                                const char *path, int type, const struct fl_socket_access *access,
                                struct fl_listening *ret_listening)
{
    int there = sockets->fd[id];
    // Again: a client that connects is told the pid of the process that was the last to do this.
    if (there >= 0 && socket_is_at(path, there, ret_listening) && listen(there, SOMAXCONN) == 0)
        return 0;
    int error = fl_socket_listen(path, type, access, ret_listening);
    if (error)
        return error;
    fl_inherited_sockets_replace(sockets, id, ret_listening->fd);
    return 0;
}

int fl_inherited_sockets_listen_tcp(struct fl_inherited_sockets *sockets,
                                    enum fl_inherited_socket id,
                                    const struct fl_tcp_address *address)
{
    int there = sockets->fd[id];
    if (there >= 0 && fl_tcp_is_at(there, address))
        return there;
    int fd = fl_tcp_listen(address);
    // The one that there is stands in the way of 127.0.0.1:PORT becoming :PORT, or the other way
    // round. The keeper has it, too: the next attempt finds that it is gone.
    if (fd == -EADDRINUSE && there >= 0 && fl_tcp_has_port(there, address))
        fl_inherited_sockets_drop(sockets, id);
    if (fd >= 0)
        fl_inherited_sockets_replace(sockets, id, fd);
    return fd;
}

// The path that it was bound to may be another's by now, and what was bound by way of a short name
// is not found again.
static void close_socket(int fd)
{
    struct sockaddr_un bound = {0};
    socklen_t size = sizeof(bound) - 1; // ends with a NUL
    struct fl_listening listening;
    if (getsockname(fd, (struct sockaddr *)&bound, &size) == 0 && bound.sun_family == AF_UNIX &&
        bound.sun_path[0] == '/' && fl_socket_identify(fd, &listening) == 0)
        fl_socket_unlink(bound.sun_path, &listening);
    close(fd);
}

void fl_inherited_sockets_replace(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id,
                                  int fd)
{
    if (sockets->fd[id] >= 0)
        close_socket(sockets->fd[id]);
    sockets->fd[id] = fd;
    fl_keeper_link_put_socket(sockets->keeper_link, id, fd);
}

void fl_inherited_sockets_forget(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id)
{
    sockets->fd[id] = -1;
}

void fl_inherited_sockets_drop(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id)
{
    if (sockets->fd[id] < 0)
        return;
    close_socket(sockets->fd[id]);
    sockets->fd[id] = -1;
    fl_keeper_link_drop(sockets->keeper_link, FL_RECORD_SOCKET, id);
}

void fl_inherited_sockets_keep(const struct fl_inherited_sockets *sockets)
{
    for (int id = FL_SOCKET_CONTROL; id < FL_INHERITED_SOCKETS; id++) {
        if (sockets->fd[id] >= 0)
            fl_keeper_link_put_socket(sockets->keeper_link, (enum fl_inherited_socket)id,
                                      sockets->fd[id]);
    }
}
