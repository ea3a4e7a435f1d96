// SPDX-License-Identifier: Apache-2.0
//
// Whether to look again for the next fault or to block until it comes. Waking a blocked thread
// costs several times what a fault costs, so a worker spins for a while after it has served one, as
// long as that pays: when faults seldom come within the time of a spin it blocks at once, and only
// tries spinning again now and then.
#ifndef FAULTLINE_WORKER_SPIN_H
#define FAULTLINE_WORKER_SPIN_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/arch.h> // caa_cpu_relax

enum { FL_SPIN_FULL = 1024, FL_SPIN_WORTH = FL_SPIN_FULL / 8, FL_SPIN_PROBE = 64 };

struct fl_spin {
    uint64_t length_ns;
    uint64_t served_ns; // when a fault was last served
    unsigned score;     // moving share, of FL_SPIN_FULL, of faults that came within a spin's time
    unsigned blocked;   // times in a row that we did not spin
    bool on;            // spinning since served_ns
};

static inline void fl_spin_init(struct fl_spin *spin, uint64_t length_ns)
{
    *spin = (struct fl_spin){.length_ns = length_ns, .score = FL_SPIN_FULL};
}

static inline void fl_spin_served(struct fl_spin *spin, uint64_t now)
{
    bool soon = now - spin->served_ns <= spin->length_ns;
    spin->score = spin->score - spin->score / 8 + (soon ? FL_SPIN_FULL / 8 : 0);
    spin->served_ns = now;
    spin->on = spin->score >= FL_SPIN_WORTH || ++spin->blocked % FL_SPIN_PROBE == 0;
}

// True: look again. False: block.
static inline bool fl_spin_on(struct fl_spin *spin, uint64_t now)
{
    spin->on = spin->on && now - spin->served_ns <= spin->length_ns;
    if (spin->on)
        caa_cpu_relax();
    return spin->on;
}

#endif
