// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of FUSE connections, those of images as files among them. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_FUSE_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_FUSE_H

#include <jansson.h>
#include <stdbool.h>

#include "engine/doctor/doctor.h"

// Prints those that are not well and the tasks that wait too long; all: the others, too.
void doctor_print_fuse(const struct fl_diagnosis *found, int64_t patience_ms, bool all);
// Lists, as docs/json.md says.
json_t *doctor_fuse_json(const struct fl_diagnosis *found);
json_t *doctor_fuse_tasks_json(const struct fl_diagnosis *found);

#endif
