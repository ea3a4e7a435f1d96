// SPDX-License-Identifier: Apache-2.0
//
// What the parts of keeper_link.h share. Control thread only.
#ifndef FAULTLINE_LINK_KEEPER_LINK_INTERNAL_H
#define FAULTLINE_LINK_KEEPER_LINK_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/loop.h"
#include "engine/link/channel.h"
#include "engine/link/keeper_link_ops.h"

// Moves: NONE > STANDBY (started with a channel), STANDBY > SERVING (the keeper has sent every
// record), STANDBY or SERVING > NONE (the keeper is lost), NONE > SERVING (a new keeper has come).
// SERVE may be acted on after the keeper is lost: then it changes nothing here.
enum fl_keeper_link_state {
    FL_KEEPER_LINK_NONE,    // there is no keeper; source.fd is -1
    FL_KEEPER_LINK_STANDBY, // it sends the records of a predecessor, until it says SERVE
    FL_KEEPER_LINK_SERVING, // it holds what this engine puts
    FL_KEEPER_LINK_STATES,
};

struct fl_keeper_link {
    struct fl_keeper_link_options options;
    enum fl_keeper_link_state state;
    struct fl_source source;
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
// -EPIPE if the keeper is gone, -EMFILE if there was no room for its descriptor: the keeper has it,
// or -ETIMEDOUT if nothing has come for so long. -1: it waits for ever.
int fl_keeper_link_wait_for(struct fl_keeper_link *keeper_link, enum fl_message_type type,
                            uint64_t id, int wait_ms, int *ret_fd);
// What a message says of the keeper's table: 1 more than there is room for, 0: nothing.
void fl_keeper_link_learn_room(struct fl_keeper_link *keeper_link, uint64_t room);

#endif
