// SPDX-License-Identifier: Apache-2.0
//
// What happens at named points of the code (engine/base/crash_point.h). An engine dies there: the
// next one that comes there once the point is armed, and no other. Or what comes there is held back
// until the test lets it go. For Criterion.
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

// What the test starts from now on holds back what FL_HELD(point) guards, until it is let go.
void point_hold(const struct world *world, const char *point);
void point_let_go(const struct world *world);

#endif
