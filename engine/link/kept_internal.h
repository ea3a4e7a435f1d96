// SPDX-License-Identifier: Apache-2.0
//
// What the parts of kept.h share. Control thread only.
#ifndef FAULTLINE_LINK_KEPT_INTERNAL_H
#define FAULTLINE_LINK_KEPT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/link/kept.h"
#include "engine/server/server.h"

struct fl_kept {
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
void fl_kept_lost(struct fl_kept *kept);
void fl_kept_send(struct fl_kept *kept, const struct fl_message *message, const int *fds);
// The answer of this type to what was asked for `id`; puts aside what else comes first. Its error,
// -EPIPE if the keeper is gone, or -EMFILE if there was no room for its descriptor: the keeper has
// it.
int fl_kept_wait_for(struct fl_kept *kept, enum fl_message_type type, uint64_t id, int *ret_fd);
// What a message says of the keeper's table: 1 more than there is room for, 0: nothing.
void fl_kept_learn_room(struct fl_kept *kept, uint64_t room);

#endif
