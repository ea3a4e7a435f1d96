// SPDX-License-Identifier: Apache-2.0
//
// What is known of a client that wants memory served: its process, its descriptors, what it asked
// for.
#ifndef FAULTLINE_ACCEPT_PEER_H
#define FAULTLINE_ACCEPT_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/choices.h"

struct fl_template;

// The descriptors belong to the holder of the structure; -1 where there is none.
struct fl_peer {
    int64_t pid;      // 0 if unknown here
    bool owner;       // pid and pidfd are of the process whose memory it is; else of the one that
                      // connected
    bool told;        // no page of that memory can be dropped without an event
    bool alone;       // no other process can drop pages of that memory
    bool anonymous;   // that memory is of no file
    bool reserved;    // the pool has set all of its pages of 2 MiB aside
    bool transparent; // its first write in a range of 2 MiB may bring a huge page
    int uffd;
    int pidfd;
    int socket;
    uint64_t connection; // the keeper's record of it, 0: none
    uint64_t huge_need;  // pages of 2 MiB, if they were counted already; else 0
    struct fl_choices choices;
    struct fl_template *template; // that it maps; NULL: none
};

// Closes its descriptors, in another thread: closing may take long (close_thread.h).
void fl_peer_close(struct fl_peer *peer);

#endif
