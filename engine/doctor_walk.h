// SPDX-License-Identifier: Apache-2.0
//
// The parts of a diagnosis: what /proc says, and what follows from it.
#ifndef FAULTLINE_ENGINE_DOCTOR_WALK_H
#define FAULTLINE_ENGINE_DOCTOR_WALK_H

#include "engine/doctor.h"

// Fills in the userfaultfds with their holders and faults, the tasks that wait, and the processes
// that cannot end. -errno as fl_diagnose(), with everything freed.
int fl_doctor_walk(struct fl_diagnosis *ret_found);
// Says of one walk's findings whose tasks are whose, and who has waited too long.
void fl_doctor_judge(struct fl_diagnosis *found, int64_t patience_ms);

#endif
