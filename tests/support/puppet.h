// SPDX-License-Identifier: Apache-2.0
//
// A VMM (the puppet) whose handshake another process does (the puppeteer), as orchestrators do.
#ifndef FAULTLINE_TESTS_SUPPORT_PUPPET_H
#define FAULTLINE_TESTS_SUPPORT_PUPPET_H

#include <stdbool.h>

#include "tests/support/client.h"
#include "tests/support/memory.h"

struct puppet {
    const struct memory *memory;
    bool closes; // its userfaultfd, once the puppeteer may have it
};

struct puppeteer {
    const struct client *puppet;
    const char *socket;
};

// Gives its userfaultfd away; touches and checks all of its memory when it is told 't'.
client_main puppet_main;
// Passes on what the puppet gives, closes all that it has, says 'h', and ends when it is told 'e'.
client_main puppeteer_main;

#endif
