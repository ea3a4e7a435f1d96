// SPDX-License-Identifier: Apache-2.0
//
// What the parts of keeper_link.h share. Control thread only.
#ifndef FAULTLINE_LINK_KEEPER_LINK_INTERNAL_H
#define FAULTLINE_LINK_KEEPER_LINK_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/link/keeper_link.h"
#include "engine/server/server.h"

struct fl_keeper_link {
    struct fl_source source; // .fd -1: no keeper
    struct fl_server *server;
    struct cds_list_head later;
    struct fl_message received;
    uint64_t next_id;
    unsigned room; // descriptors that the keeper can still take, as far as is known
    bool outside;  // a service manager keeps what the keeper does
    char news[FL_CHANNEL_TEXT];
};

// The keeper has gone.
void fl_keeper_link_lost(struct fl_keeper_link *keeper_link);
void fl_keeper_link_send(struct fl_keeper_link *keeper_link, const struct fl_message *message,
                         const int *fds);
// The answer of this type to what was asked for `id`; puts aside what else comes first. Its error,
// -EPIPE if the keeper is gone, or -EMFILE if there was no room for its descriptor: the keeper has
// it.
int fl_keeper_link_wait_for(struct fl_keeper_link *keeper_link, enum fl_message_type type,
                            uint64_t id, int *ret_fd);
// What a message says of the keeper's table: 1 more than there is room for, 0: nothing.
void fl_keeper_link_learn_room(struct fl_keeper_link *keeper_link, uint64_t room);

#endif
