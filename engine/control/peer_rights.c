// SPDX-License-Identifier: Apache-2.0
#include "engine/control/peer_rights.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/control/control_options.h"

enum { GROUPS_MOST = 65536 }; // NGROUPS_MAX of Linux

// The groups that the peer had beside its first when it connected.
static bool has_group(int socket, gid_t group)
{
    bool has = false;
    socklen_t size = GROUPS_MOST * sizeof(gid_t);
    gid_t *groups = malloc(size);
    if (!groups || getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size) != 0)
        size = 0;
    for (size_t i = 0; i < size / sizeof(gid_t); i++)
        has |= groups[i] == group;
    free(groups);
    return has;
}

bool fl_peer_may_order(int socket, const struct fl_control_options *options, uid_t *ret_uid)
{
    const struct fl_socket_access *access = &options->control_access;
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    *ret_uid = (uid_t)-1;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return false;
    *ret_uid = peer.uid;
    if (peer.uid == 0 || peer.uid == geteuid() ||
        (access->uid != (uid_t)-1 && peer.uid == access->uid))
        return true;
    gid_t group = access->gid != (gid_t)-1 ? access->gid : getegid();
    return options->group_orders && (peer.gid == group || has_group(socket, group));
}
