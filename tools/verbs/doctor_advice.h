// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of what he found: what it means, and the one command that mends it.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_ADVICE_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_ADVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/doctor/doctor.h"

enum { DOCTOR_COMMAND = 512, DOCTOR_WHOSE = 256 };

// What mends it. Each command works as it is printed, or is empty.
struct doctor_mend {
    char command[DOCTOR_COMMAND];
    const char *only_if;            // what must be true for it; NULL: nothing
    char otherwise[DOCTOR_COMMAND]; // the command to give if it is not
};

const char *doctor_explain(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd);
void doctor_mend(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                 struct doctor_mend *ret_mend);
// Whether it waits for a page of 2 MiB that is not to be had.
bool doctor_is_about_pool(const struct fl_uffd_case *uffd);
// What it means that the holder is stopped, though nobody waits yet.
const char *doctor_explain_stopped(const struct fl_uffd_case *uffd,
                                   const struct fl_uffd_holder *holder);
// A command that has it go on; empty if a debugger holds it.
void doctor_mend_stopped(const struct fl_uffd_holder *holder, char *buf, size_t size);
// What is not seen; NULL if all is.
const char *doctor_explain_view(const struct fl_diagnosis *found);
// For whose memory a task waits that is not its own: a sentence's end, or nothing.
void doctor_whose(const struct fl_diagnosis *found, const struct fl_waiting_task *task, char *buf,
                  size_t size);
// What can be done for a task that is unexplained.
extern const char doctor_unexplained[];

#endif
