// SPDX-License-Identifier: Apache-2.0
//
// Named points in the engine's work at which a test can have it killed. In builds with
// FAULTLINE_POINTS only (not in releases): the environment FAULTLINE_KILL_AT=NAME[:N] has the
// process send itself SIGKILL when it comes to the point for the Nth time; with FAULTLINE_KILL_TOKEN
// only the one that can remove the file of that name, so that its successors live.
#ifndef FAULTLINE_ENGINE_POINT_H
#define FAULTLINE_ENGINE_POINT_H

#ifdef FAULTLINE_POINTS
void fl_point(const char *name);
#define FL_POINT(name) fl_point(name)
#else
#define FL_POINT(name) ((void)0)
#endif

#endif
