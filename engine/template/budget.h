// SPDX-License-Identifier: Apache-2.0
//
// What all templates of a server may take of the host's memory together. Any thread.
#ifndef FAULTLINE_TEMPLATE_BUDGET_H
#define FAULTLINE_TEMPLATE_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// In pages of 4 KiB.
struct fl_template_budget {
    uint64_t limit;
    _Atomic uint64_t used; // a reservation that fails exceeds the limit for a moment
};

// limit_bytes 0: a half of the host's memory.
void fl_template_budget_init(struct fl_template_budget *budget, uint64_t limit_bytes);
// Room for pages that are about to be filled; false: there is none, and nothing was taken.
bool fl_template_budget_reserve(struct fl_template_budget *budget, uint64_t pages);
// Counts pages that are filled already; these may exceed the limit.
void fl_template_budget_take(struct fl_template_budget *budget, uint64_t pages);
// Gives back what was reserved or taken.
void fl_template_budget_release(struct fl_template_budget *budget, uint64_t pages);

#endif
