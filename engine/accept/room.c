// SPDX-License-Identifier: Apache-2.0
//
// Where there is not room for all, first comes what VMs need that are served, then new VMs, then
// sockets of images.
//
// While there is no room for another VM the paths of all sockets are taken away: a client that
// connects then is told at once, and has not handed over a userfaultfd that the server cannot
// receive.
#include "engine/accept/room.h"

#include "engine/accept/acceptor.h"
#include "engine/accept/listener.h"
#include "engine/base/descriptors.h"
#include "engine/link/degraded.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

enum {
    CONNECTIONS_COUNTED = 256, // more are silent, and not all of them bring a VM
    EACH = 4,                  // descriptors of a VM
    ON_ITS_WAY = 4,            // more, while its handshake is received
    TO_REFUSE = 8,             // for a handshake that is refused, and kept until its peer is gone
    // So much of the table is for VMs, and not for sockets of images.
    SHARE_OF_VMS = 4,
    FOR_VMS = 512,
};

// In our table, and in that of the keeper, which holds the same and the listeners' descriptions.
static bool has_room(const struct fl_acceptor *acceptor, unsigned reserve, unsigned more)
{
    return fl_keeper_link_room(acceptor->engine->keeper_link) >= more &&
           fl_descriptors_free(reserve + more);
}

bool fl_room_for_vms(const struct fl_acceptor *acceptor, unsigned vms)
{
    unsigned connections = acceptor->connection_count < CONNECTIONS_COUNTED
                               ? acceptor->connection_count
                               : CONNECTIONS_COUNTED;
    return has_room(acceptor, fl_descriptors_reserve(), (connections + vms) * EACH + ON_ITS_WAY);
}

bool fl_room_to_listen(const struct fl_acceptor *acceptor)
{
    unsigned share = fl_descriptors_limit() / SHARE_OF_VMS;
    return has_room(acceptor, fl_descriptors_reserve(), share < FOR_VMS ? share : FOR_VMS);
}

bool fl_room_to_refuse(const struct fl_acceptor *acceptor)
{
    return has_room(acceptor, 0, TO_REFUSE);
}

// The queues stay, and are accepted from.
void fl_room_shut(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    if (acceptor->shut)
        return;
    acceptor->shut = true;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (listener->listening.fd >= 0)
            fl_socket_unlink(listener->path, &listener->listening);
        listener->away = true;
    }
    fl_lacks(&acceptor->engine->degraded, FL_LACK_DESCRIPTORS,
             "the limit of open files, %u, is reached: no new VM is taken until others have ended",
             fl_descriptors_limit());
}

void fl_room_look(struct fl_acceptor *acceptor)
{
    // Not for one alone: they would come and go with it.
    if (!fl_room_for_vms(acceptor, acceptor->shut ? 2 : 1))
        fl_room_shut(acceptor);
    else
        acceptor->shut = false;
}
