// SPDX-License-Identifier: Apache-2.0
//
// Follows the store at a path, whichever that is now: each published image gets its socket, each
// removed one loses it. While there is no store, all stays as it is. Control thread.
#ifndef FAULTLINE_ACCEPT_STORE_WATCH_H
#define FAULTLINE_ACCEPT_STORE_WATCH_H

#include <stdbool.h>

#include "engine/accept/acceptor.h"

struct fl_store_watch;

// From now on it looks when something changes in the store. `first`: no VM depends on the server
// yet, so it looks once before it returns, and -errno says that there is no store. Else a reader
// does that: storage that hangs must not hold up VMs that wait. *ret_follow is to be stopped in
// either case, unless it is -ENOMEM.
int fl_store_watch_start(struct fl_acceptor *acceptor, bool first,
                         struct fl_store_watch **ret_follow);
// Once in a while: is it still the store at the path, and can it be watched?
void fl_store_watch_look(struct fl_store_watch *watch); // NULL is allowed
// True while it is to look often: images are on offer whose packing may end unseen. NULL is allowed.
bool fl_store_watch_stirs(const struct fl_store_watch *watch);
// NULL is allowed; after the readers have ended, which may be at it.
void fl_store_watch_stop(struct fl_store_watch *watch);

#endif
