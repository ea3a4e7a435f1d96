// SPDX-License-Identifier: Apache-2.0
//
// A good VMM that goes on while others misbehave: whatever they do, it is served, and every byte is
// the image's.
#ifndef FAULTLINE_TESTS_PROTOCOL_GOOD_H
#define FAULTLINE_TESTS_PROTOCOL_GOOD_H

#include "tests/support/world.h"

struct good {
    struct client client;
    const char *socket;
    const struct memory *memory;
};

// Attached, and served its last page.
void good_start(struct good *good, const char *socket, const struct memory *memory);
// It touches and compares the next `pages` pages (after the last one, the first again).
bool good_touch(struct good *good, unsigned pages);
// It touches and compares all there are, and ends: its exit status, 0 if all was right.
int good_end(struct good *good);

#endif
