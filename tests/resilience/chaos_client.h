// SPDX-License-Identifier: Apache-2.0
//
// A client of the chaos run: a VM's process that touches, writes and removes its pages at random
// and compares each byte it sees with a model of what must be there.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_CLIENT_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/resilience/chaos_board.h"

// How it ended. Anything else is a VM that was lost.
enum chaos_exit {
    CHAOS_FINE = 0,
    CHAOS_WRONG = 10,   // saw wrong bytes
    CHAOS_REFUSED = 11, // could not do its handshake
    CHAOS_BROKEN = 12,  // trouble of its own, as no memory
};

enum { CHAOS_LIMITED_EVERY = 4 }; // of so many slots one is of VMs under the memory limit

struct chaos_plan {
    const char *socket;
    const char *template_socket; // of clones; while there is no template they are as the others
    const char *limit_procs; // cgroup.procs of the memory limit that some live under; NULL: none
    bool huge;               // some VMs are of 2 MiB pages
    enum chaos_kind kind;
    bool brief;       // it touches but a part of its memory, but looks at all of it in the end
    bool hasty;       // without any pause
    uint32_t in_vain; // the last pages of the image, which nobody touches
    uint64_t image_seed;
    uint64_t seed;       // of what this client does
    uint32_t pages_most; // it takes between an eighth of them and all
    uint32_t pause_us;   // mean pause between two operations of a thread
};

// The body of a client, in a process of its own: its exit status. What is wrong is on stderr.
int chaos_client_main(const struct chaos_plan *plan, struct chaos_board *board,
                      struct chaos_slot *slot);

#endif
