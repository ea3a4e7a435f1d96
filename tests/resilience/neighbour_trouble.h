// SPDX-License-Identifier: Apache-2.0
//
// A neighbour in trouble: a VM of 2 GiB of the same worker whose own state could make whoever
// serves it wait.
#ifndef FAULTLINE_TESTS_RESILIENCE_NEIGHBOUR_TROUBLE_H
#define FAULTLINE_TESTS_RESILIENCE_NEIGHBOUR_TROUBLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum trouble {
    TROUBLE_NONE,    // no neighbour
    TROUBLE_BUSY,    // it touches all of its memory, again and again, without any trouble
    TROUBLE_LIMIT,   // ... in a memory cgroup with an eighth of that, and swap that is slow
    TROUBLE_KILLED,  // ... and is killed when most of it is there, and another comes
    TROUBLE_STOPPED, // ... and is stopped by SIGSTOP
    TROUBLE_FROZEN,  // ... by the freezer of cgroups
    TROUBLE_MADVISE, // ... while it gives memory back all the time
    TROUBLES
};
extern const char *const trouble_key[TROUBLES];

struct trouble_options {
    const char *socket; // of an image of `bytes`
    uint64_t bytes;
    uint64_t swap_rate; // bytes a second that the server may write to the swap
    const char *dir;    // for the swap
};

struct trouble_now {
    const struct trouble_options *options;
    enum trouble kind;
    pid_t pid;                 // of the neighbour; 0: none
    unsigned kills;            // so far
    _Atomic uint64_t *touched; // pages, by the neighbour; shared with it
    uint64_t stop_at;          // ms; 0: it is stopped already
};

// What cgroups and swap it takes; false, with a reason on standard error, where that cannot be had.
bool trouble_prepare(const struct trouble_options *options, enum trouble kind, const pid_t *server,
                     unsigned servers);
void trouble_give_back(void);

bool trouble_begin(struct trouble_now *now, const struct trouble_options *options,
                   enum trouble kind);
// Every few milliseconds.
void trouble_go_on(struct trouble_now *now, uint64_t ms);
void trouble_end(struct trouble_now *now);

#endif
