// SPDX-License-Identifier: Apache-2.0
//
// A neighbour in trouble: a VM of the same worker whose own state could make the engine wait.
#ifndef FAULTLINE_TESTS_RESILIENCE_NEIGHBOUR_TROUBLE_H
#define FAULTLINE_TESTS_RESILIENCE_NEIGHBOUR_TROUBLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum trouble {
    TROUBLE_NONE,    // there is no neighbour
    TROUBLE_BUSY,    // the neighbour touches all of its memory, again and again, without trouble
    TROUBLE_LIMIT,   // it does so in a memory cgroup with an eighth of that, and swap that is slow
    TROUBLE_KILLED,  // it is killed when most of its memory is there, and another one starts
    TROUBLE_STOPPED, // SIGSTOP stops it
    TROUBLE_FROZEN,  // the freezer of cgroups stops it
    TROUBLE_MADVISE, // SIGSTOP stops it while it gives memory back all the time
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
    pid_t pid;                 // of the neighbour; 0: not running
    unsigned kills;            // so far
    _Atomic uint64_t *touched; // pages, by the neighbour; shared with it
    uint64_t stop_at;          // ms after the start; 0: it is stopped already
};

// Makes the cgroups and the swap that the trouble takes. Prints why and returns false if it cannot.
bool trouble_prepare(const struct trouble_options *options, enum trouble kind, const pid_t *server,
                     unsigned servers);
void trouble_give_back(void);

bool trouble_begin(struct trouble_now *now, const struct trouble_options *options,
                   enum trouble kind);
// Call it every few milliseconds, with the time since the start.
void trouble_go_on(struct trouble_now *now, uint64_t ms);
void trouble_end(struct trouble_now *now);

#endif
