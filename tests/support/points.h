// SPDX-License-Identifier: Apache-2.0
//
// An engine that dies at a named point of the code (engine/base/crash_point.h): the next one that
// comes there once the point is armed, and no other. For Criterion.
#ifndef FAULTLINE_TESTS_SUPPORT_POINTS_H
#define FAULTLINE_TESTS_SUPPORT_POINTS_H

#include "tests/support/world.h"

// Skips the test in a build without points.
void need_points(void);
// What is started between these two dies at `point`, or at its nth time there ("POINT:N").
void point_begin(const struct world *world, const char *point);
void point_end(void);
void point_arm(const struct world *world);
// Of a world, for wait_until(): whether one has died there.
bool point_struck(void *world);

#endif
