// SPDX-License-Identifier: Apache-2.0
//
// The doctor's eyes: what /proc says, and no judgement.
#ifndef FAULTLINE_ENGINE_DOCTOR_WALK_H
#define FAULTLINE_ENGINE_DOCTOR_WALK_H

#include "engine/doctor.h"

// Fills in the userfaultfds with their holders and faults, the tasks that wait, and the processes
// that cannot end. -errno as fl_diagnose(), with everything freed.
int fl_doctor_walk(struct fl_diagnosis *ret_found);

#endif
