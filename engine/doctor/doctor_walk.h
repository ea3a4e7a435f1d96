// SPDX-License-Identifier: Apache-2.0
//
// The parts of a diagnosis: what /proc says, and what follows from it.
#ifndef FAULTLINE_DOCTOR_DOCTOR_WALK_H
#define FAULTLINE_DOCTOR_DOCTOR_WALK_H

#include "engine/doctor/doctor.h"

// Fills in the userfaultfds with their holders and faults, the tasks that wait, and the processes
// that cannot end. -errno as fl_diagnose(), with everything freed.
int fl_doctor_walk(struct fl_diagnosis *ret_found);
// Says of one walk's findings whose tasks are whose, and who has waited too long. An unknown wait
// (-1) is too long.
void fl_doctor_judge(struct fl_diagnosis *found, int64_t patience_ms);
// Marks in the second walk's findings what is not as it was in the first, elapsed_ms before: tasks
// that have run since, holders that were not stopped then. A wait that the kernel does not tell is
// as long as that.
void fl_doctor_compare(const struct fl_diagnosis *first, struct fl_diagnosis *second,
                       int64_t elapsed_ms);
// True if a wait is in it that was seen for less than the patience, and of which no more is known.
bool fl_doctor_must_watch(const struct fl_diagnosis *first, const struct fl_diagnosis *second,
                          int64_t patience_ms);

#endif
