// SPDX-License-Identifier: Apache-2.0
//
// How often one looks after what tells nobody of its trouble. Often while things happen, as trouble
// comes with them; seldom when nothing has for a while: each look wakes a thread, and that is all
// that an idle server costs.
#ifndef FAULTLINE_BASE_PACE_H
#define FAULTLINE_BASE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/clock.h"

#define FL_PACE_OFTEN FL_NS_PER_S
#define FL_PACE_SELDOM_MOST (5 * FL_NS_PER_S)
#define FL_PACE_CALM (30 * FL_NS_PER_S) // without news, until looks are seldom

struct fl_pace {
    uint64_t news_ns; // when something last happened
};

static inline void fl_pace_news(struct fl_pace *pace, uint64_t now)
{
    pace->news_ns = now;
}

static inline bool fl_pace_is_calm(const struct fl_pace *pace, uint64_t now)
{
    return now >= pace->news_ns && now - pace->news_ns >= FL_PACE_CALM;
}

// The time between two looks, for those that must see trouble well within `limit_ns`.
static inline uint64_t fl_pace_every(const struct fl_pace *pace, uint64_t now, uint64_t limit_ns)
{
    uint64_t every = limit_ns < FL_PACE_SELDOM_MOST ? limit_ns : FL_PACE_SELDOM_MOST;
    return fl_pace_is_calm(pace, now) && every > FL_PACE_OFTEN ? every : FL_PACE_OFTEN;
}

#endif
