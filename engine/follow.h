// SPDX-License-Identifier: Apache-2.0
//
// Follows a store: each published image gets its socket, each removed one loses it. Control thread.
#ifndef FAULTLINE_ENGINE_FOLLOW_H
#define FAULTLINE_ENGINE_FOLLOW_H

#include "engine/server.h"

struct fl_follow;

// Looks at the store once before it returns, then whenever something changes in it.
int fl_follow_start(struct fl_server *server, struct fl_follow **ret_follow);
void fl_follow_stop(struct fl_follow *follow); // NULL is allowed; before the engine's readers stop

#endif
