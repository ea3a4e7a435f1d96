// SPDX-License-Identifier: Apache-2.0
//
// One walk over /proc: what it says of userfaultfds and of tasks, without a judgement.
#ifndef FAULTLINE_DOCTOR_DOCTOR_WALK_H
#define FAULTLINE_DOCTOR_DOCTOR_WALK_H

#include "engine/doctor/diagnosis.h"

// Fills in the userfaultfds with their holders and faults, the tasks that wait, and the processes
// that cannot end. -errno as fl_diagnose(), with everything freed.
int fl_doctor_walk(struct fl_diagnosis *ret_found);

#endif
