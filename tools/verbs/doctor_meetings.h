// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of what a killed checkpoint has left, and what helps. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_MEETINGS_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_MEETINGS_H

#include <jansson.h>

#include "engine/doctor/doctor.h"

void doctor_print_left(const struct fl_diagnosis *found);
// A list, as docs/json.md says.
json_t *doctor_left_json(const struct fl_diagnosis *found);

#endif
