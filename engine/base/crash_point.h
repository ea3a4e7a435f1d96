// SPDX-License-Identifier: Apache-2.0
//
// Named points in the engine's work, in builds with FAULTLINE_POINTS only (not in releases). What
// happens at them is said by the environment, as it is when the process comes to the first one:
//
//   FAULTLINE_KILL_AT=NAME[:N]   The process sends itself SIGKILL when it comes to the point the
//                                Nth time; with FAULTLINE_KILL_TOKEN only the one that can remove
//                                the file of that name, so that its successors live.
//   FAULTLINE_DELAYS=SEED[:US]   Threads sleep at points, for a random time of at most US (1000)
//                                microseconds. At a quarter of the points, and another quarter of
//                                them every few milliseconds: so one thread stops where the others
//                                run on, and all that can happen at such a place has its turn.
//
//   FAULTLINE_HOLD_AT=NAME       What FL_HELD(NAME) guards is held back, for as long as the file
//                                FAULTLINE_HOLD_TOKEN is there.
//
// A point marks an order of events that matters: between two writes that a death must not tear
// apart, or where a reference changes hands.
#ifndef FAULTLINE_BASE_CRASH_POINT_H
#define FAULTLINE_BASE_CRASH_POINT_H

#include <stdbool.h>

#ifdef FAULTLINE_POINTS
// Any thread; may sleep. In every thread that has a lock, too: those are held for moments only.
void fl_crash_point(const char *name);
#define FL_CRASH_POINT(name) fl_crash_point(name)
// Any thread; does not wait. True while a test holds this back.
bool fl_held(const char *name);
#define FL_HELD(name) fl_held(name)
#else
#define FL_CRASH_POINT(name) ((void)0)
#define FL_HELD(name) false
#endif

#endif
