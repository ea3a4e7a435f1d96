// SPDX-License-Identifier: Apache-2.0
//
// What the processes of store_race do, and what each may answer.
#ifndef FAULTLINE_TESTS_RACE_VERBS_H
#define FAULTLINE_TESTS_RACE_VERBS_H

#include <stdbool.h>
#include <stdint.h>

struct race_order {
    const char *dir;
    const char *store;
    const char *output; // a file of this process's own
    const char *log;    // the same, for what it says
    const char *verb;   // set by race_order_choose
    unsigned name;
    unsigned content; // one of the name's
    uint64_t seed;
};

// Sets what is to be done to what, by the seed.
void race_order_choose(struct race_order *order);
// In a process of its own: does not return.
_Noreturn void race_order_run(const struct race_order *order);
// Whether it has ended as it may, with nothing wrong; killed: it may have been, by the test.
bool race_order_check(const struct race_order *order, int status, bool killed);

#endif
