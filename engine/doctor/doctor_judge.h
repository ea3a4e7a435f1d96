// SPDX-License-Identifier: Apache-2.0
//
// What follows from one walk's findings: whose tasks are whose, and which have waited too long.
#ifndef FAULTLINE_DOCTOR_DOCTOR_JUDGE_H
#define FAULTLINE_DOCTOR_DOCTOR_JUDGE_H

#include <stdint.h>

#include "engine/doctor/diagnosis.h"

// Says of one walk's findings whose tasks are whose, and which have waited too long. An unknown
// wait
// (-1) is too long.
void fl_doctor_judge(struct fl_diagnosis *found, int64_t patience_ms);

#endif
