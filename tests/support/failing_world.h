// SPDX-License-Identifier: Apache-2.0
//
// A world whose server has failing_calls.c loaded: calls of its engines fail as the test says. For
// tests that CMake gives the library's path (FAILING_LIBRARY).
#ifndef FAULTLINE_TESTS_SUPPORT_FAILING_WORLD_H
#define FAULTLINE_TESTS_SUPPORT_FAILING_WORLD_H

#include "tests/support/failing_calls.h"
#include "tests/support/world.h"

// What the world's server will look at, shared with clients that are started from now on. All zero.
struct failing_calls *world_failing_calls(const struct world *world);
// world_serve(), with the library loaded into the server.
void world_serve_failing(struct world *world, const char *const *extra);

#endif
