// SPDX-License-Identifier: Apache-2.0
#include "engine/link/inherited_sockets.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/link/keeper_link.h"

void fl_inherited_sockets_init(struct fl_inherited_sockets *sockets)
{
    sockets->keeper_link = NULL;
    for (int id = 0; id <= FL_SOCKET_INOTIFY; id++)
        sockets->fd[id] = -1;
}

void fl_inherited_sockets_take(struct fl_inherited_sockets *sockets, uint64_t id, int *fd)
{
    if (id < FL_SOCKET_CONTROL || id > FL_SOCKET_INOTIFY)
        return;
    sockets->fd[id] = *fd;
    *fd = -1;
}

// A socket of another process may stand in its place. Without the right to ask what it was bound to
// it is believed to be ours.
static bool socket_is_at(const char *path, int fd, struct fl_listening *ret_listening)
{
    struct stat status;
    if (lstat(path, &status) != 0 || !S_ISSOCK(status.st_mode))
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

void fl_inherited_sockets_replace(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id,
                                  int fd)
{
    if (sockets->fd[id] >= 0) // its file is gone: no client can reach it
        close(sockets->fd[id]);
    sockets->fd[id] = fd;
    fl_keeper_link_put_socket(sockets->keeper_link, id, fd);
}

void fl_inherited_sockets_forget(struct fl_inherited_sockets *sockets, enum fl_inherited_socket id)
{
    sockets->fd[id] = -1;
}

void fl_inherited_sockets_keep(const struct fl_inherited_sockets *sockets)
{
    for (int id = FL_SOCKET_CONTROL; id <= FL_SOCKET_INOTIFY; id++) {
        if (sockets->fd[id] >= 0)
            fl_keeper_link_put_socket(sockets->keeper_link, (enum fl_inherited_socket)id,
                                      sockets->fd[id]);
    }
}
