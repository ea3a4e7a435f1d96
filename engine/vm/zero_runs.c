// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/zero_runs.h"

#include <stddef.h>

enum {
    MOST_LEVEL = 9,    // log2 of FL_ZERO_RUN_MOST
    PROVEN_SHARE = 8,  // one page in vain is allowed for so many that were of use
    REST_IN_VAIN = 16, // faults after a look that has proven little
};

// How many pages may still be brought in vain.
static uint64_t allowance(const struct fl_zero_runs *runs)
{
    uint64_t most = FL_ZERO_RUN_MOST + runs->proven / PROVEN_SHARE;
    return most > runs->unproven ? most - runs->unproven : 0;
}

static void prove(struct fl_zero_runs *runs, struct fl_zero_run *run, uint32_t left)
{
    runs->unproven -= run->unproven - left;
    runs->proven += run->unproven - left;
    run->unproven = left;
}

static void level_up(struct fl_zero_runs *runs)
{
    runs->level += runs->level < MOST_LEVEL;
}

static struct fl_zero_run *find_beside(struct fl_zero_runs *runs, uint64_t page)
{
    for (unsigned i = 0; i < FL_ZERO_RUNS; i++) {
        struct fl_zero_run *run = &runs->run[i];
        if (run->pages > 0 && (page == run->first + run->pages || page + 1 == run->first)) {
            runs->current = i;
            return run;
        }
    }
    return NULL;
}

// A place for a new run: one of which nothing is doubtful, or the next in turn. What is doubtful of
// that stays so.
static void take_place(struct fl_zero_runs *runs)
{
    for (unsigned i = 0; i < FL_ZERO_RUNS; i++) {
        runs->current = (runs->hand + i) % FL_ZERO_RUNS;
        if (runs->run[runs->current].unproven == 0)
            break;
    }
    struct fl_zero_run *run = &runs->run[runs->current];
    if (run->unproven > 0) {
        runs->current = runs->hand;
        run = &runs->run[runs->current];
    }
    runs->hand = (runs->current + 1) % FL_ZERO_RUNS;
    run->unproven = 0;
}

struct fl_zero_run *fl_zero_runs_doubtful(struct fl_zero_runs *runs, uint64_t page)
{
    struct fl_zero_run *most = find_beside(runs, page);
    if (most && most->unproven > 0)
        return most;
    most = &runs->run[0];
    bool full = true;
    for (unsigned i = 0; i < FL_ZERO_RUNS; i++) {
        if (runs->run[i].unproven > most->unproven)
            most = &runs->run[i];
        full = full && runs->run[i].unproven > 0;
    }
    bool wanted = full || (1ULL << runs->level) - 1 > allowance(runs);
    return wanted && most->unproven > 0 && runs->rest == 0 ? most : NULL;
}

void fl_zero_runs_seen(struct fl_zero_runs *runs, struct fl_zero_run *run, uint32_t written)
{
    uint32_t before = run->unproven;
    uint32_t left = run->pages - (written < run->pages ? written : run->pages);
    if (left < before)
        prove(runs, run, left);
    if (run->unproven <= run->pages / PROVEN_SHARE) {
        level_up(runs);
    } else if (before - run->unproven < before / 2) {
        runs->level -= runs->level > 0;
        runs->rest = REST_IN_VAIN;
    }
}

uint32_t fl_zero_runs_window(struct fl_zero_runs *runs, uint64_t page, bool sees)
{
    struct fl_zero_run *run = find_beside(runs, page);
    if (!run) {
        take_place(runs);
    } else if (!sees || run->unproven == 0) {
        prove(runs, run, 0);
        level_up(runs);
    }
    runs->rest -= runs->rest > 0;
    unsigned level = runs->level;
    while (level > 0 && (1ULL << level) - 1 > allowance(runs))
        level--;
    return 1U << level;
}

void fl_zero_runs_brought(struct fl_zero_runs *runs, uint64_t first, uint32_t pages, uint32_t asked)
{
    struct fl_zero_run *run = &runs->run[runs->current];
    run->first = first;
    run->pages = pages;
    run->unproven = pages > asked ? pages - asked : 0;
    runs->unproven += run->unproven;
}
