// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of servers that are to put pages of VMs together to pages of 2 MiB (serve
// --huge), and lack a capability for it. This alone is no lack of health. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_HUGE_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_HUGE_H

#include <jansson.h>

#include "engine/doctor/doctor.h"

void doctor_print_huge(const struct fl_diagnosis *found);
// A list, as docs/json.md says.
json_t *doctor_huge_json(const struct fl_diagnosis *found);

#endif
