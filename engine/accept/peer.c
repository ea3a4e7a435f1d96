// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/peer.h"

#include "engine/base/close_thread.h"

static void close_descriptor(int *fd)
{
    fl_close_later(*fd);
    *fd = -1;
}

void fl_peer_close(struct fl_peer *peer)
{
    close_descriptor(&peer->uffd);
    close_descriptor(&peer->pidfd);
    close_descriptor(&peer->socket);
}
