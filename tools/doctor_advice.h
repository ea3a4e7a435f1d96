// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of what he found: what it means, and the one command that mends it.
#ifndef FAULTLINE_TOOLS_DOCTOR_ADVICE_H
#define FAULTLINE_TOOLS_DOCTOR_ADVICE_H

#include <stddef.h>

#include "engine/doctor.h"

enum { DOCTOR_COMMAND = 512, DOCTOR_WHOSE = 256 };

const char *doctor_explain(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd);
// A command of the shell, or nothing.
void doctor_mend(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd, char *buf,
                 size_t size);
// For whose memory a task waits that is not its own: a sentence's end, or nothing.
void doctor_whose(const struct fl_diagnosis *found, const struct fl_waiting_task *task, char *buf,
                  size_t size);
// What can be done for a task that is unexplained.
extern const char doctor_unexplained[];

#endif
