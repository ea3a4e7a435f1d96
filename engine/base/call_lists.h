// SPDX-License-Identifier: Apache-2.0
//
// Which system calls Faultline makes, by the names of libseccomp, which knows their numbers on each
// architecture and passes over those that one has not. Each list ends with NULL.
#ifndef FAULTLINE_BASE_CALL_LISTS_H
#define FAULTLINE_BASE_CALL_LISTS_H

// What administers the host, or reaches into it below its interfaces. No version of the keeper or
// of the engine makes such a call: the keeper refuses them to itself and to all that it starts.
extern const char *const fl_calls_of_administration[];
// What starts another program. The engine never does.
extern const char *const fl_calls_that_start_programs[];
// All that the engine and its libraries call after their start, whatever the arguments.
extern const char *const fl_calls_of_the_engine[];
// What the run-time of a sanitizer calls beside; empty in other builds.
extern const char *const fl_calls_of_sanitizers[];

#endif
