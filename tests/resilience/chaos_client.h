// SPDX-License-Identifier: Apache-2.0
//
// A client of the chaos run: the process of a VM. It reads, writes and removes its pages at random,
// and compares each byte that it reads with a model of what must be there.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_CLIENT_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/resilience/chaos_board.h"

// Exit statuses of a client. With any other the VM counts as lost.
enum chaos_exit {
    CHAOS_FINE = 0,
    CHAOS_WRONG = 10,   // saw wrong bytes
    CHAOS_REFUSED = 11, // its handshake failed
    CHAOS_BROKEN = 12,  // trouble that is not the service's, such as no memory
};

enum { CHAOS_LIMITED_EVERY = 4 }; // every fourth slot is under the memory limit

struct chaos_plan {
    const char *socket;
    const char *template_socket; // of clones; without a template they map the image as others do
    const char *limit_procs;     // cgroup.procs of the memory limit; NULL: no limit
    bool huge;                   // some VMs are of 2 MiB pages
    enum chaos_kind kind;
    bool brief;       // it uses only a part of its memory, and compares all of it at the end
    bool hasty;       // it never pauses
    uint32_t in_vain; // so many pages at the end of the image are never touched
    uint64_t image_seed;
    uint64_t seed;       // decides what this client does
    uint32_t pages_most; // its memory is between an eighth of these and all
    uint32_t pause_us;   // mean pause between two operations of a thread
};

// The body of a client, in a process of its own. Prints what is wrong on stderr, and returns the
// exit status of the process.
int chaos_client_main(const struct chaos_plan *plan, struct chaos_board *board,
                      struct chaos_slot *slot);

#endif
