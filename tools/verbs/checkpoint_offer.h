// SPDX-License-Identifier: Apache-2.0
//
// The names at which VMs can be restored from a capture while it is still copied and packed, and
// whether the server listens for them yet. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_OFFER_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_OFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct checkpoint_order;
struct run;

// The names are the verb's, and so is the list of what was told.
struct offered {
    char **names;
    bool *told; // of each: the user was told that it can be restored
    size_t count;
};

// "PREFIX-1" to "PREFIX-N", or `prefix` alone for count 0. -ENOMEM. Release it with offered_free().
int offered_make(const char *prefix, unsigned count, struct offered *ret_offered);
void offered_free(struct offered *offered);
bool offered_all_told(const struct offered *offered);

// Tells of each name for which the server listens by now. A look; it may wait for the server's
// answer.
void offered_tell(const struct checkpoint_order *order);
// The same, once the packing has put it on offer, and not more often than is of use. How long the
// caller may wait until the next one: ms.
int offered_turn(struct run *run, int most_ms);

#endif
