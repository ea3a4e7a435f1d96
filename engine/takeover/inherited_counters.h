// SPDX-License-Identifier: Apache-2.0
//
// The ledgers of predecessors (engine/link/ledger.h), and our own at the keeper. Control thread
// only.
#ifndef FAULTLINE_TAKEOVER_INHERITED_COUNTERS_H
#define FAULTLINE_TAKEOVER_INHERITED_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/link/channel.h"

struct fl_engine;

enum { FL_LEDGERS_MOST = 64 };

struct fl_inherited_counters {
    struct fl_engine *engine;
    unsigned count;
    int fd[FL_LEDGERS_MOST];
    uint64_t record[FL_LEDGERS_MOST];
    uint64_t last; // the largest number of such a record so far
    uint64_t own;  // ours at the keeper; 0: it has none yet
};

void fl_inherited_counters_init(struct fl_inherited_counters *counters, struct fl_engine *engine);
// A predecessor's. Takes the descriptor if it needs it, and leaves -1 in its place.
void fl_inherited_counters_add(struct fl_inherited_counters *counters, uint64_t record, int *fd);
// Has the keeper hold ours, once; or again, as it is a new keeper. Not while it sends us records.
// Without a memfd there is none.
void fl_inherited_counters_keep(struct fl_inherited_counters *counters, bool again);
// When VMs are served, as none of them needs it: goes on from what predecessors have counted.
// False: there was no predecessor that counted in a ledger.
bool fl_inherited_counters_carry(struct fl_inherited_counters *counters);

#endif
