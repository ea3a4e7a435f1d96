// SPDX-License-Identifier: Apache-2.0
//
// Explains what the doctor has found, and gives a command that helps. The functions return static
// text or write into the caller's buffer.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_ADVICE_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_ADVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/doctor/doctor.h"

enum { DOCTOR_COMMAND = 512, DOCTOR_WHOSE = 256 };

// What to do. Each command works as it is printed, or is "".
struct doctor_mend {
    char command[DOCTOR_COMMAND];
    const char *only_if;            // a condition of the command; NULL: none
    char otherwise[DOCTOR_COMMAND]; // the command to run if the condition is not met
};

// Says what the verdict means.
const char *doctor_explain(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd);
void doctor_mend(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                 struct doctor_mend *ret_mend);
// True if the VM waits for a page of 2 MiB that cannot be had.
bool doctor_is_about_pool(const struct fl_uffd_case *uffd);
// Says what it means that the holder is stopped, although no fault waits yet.
const char *doctor_explain_stopped(const struct fl_uffd_case *uffd,
                                   const struct fl_uffd_holder *holder);
// Writes a command that lets the holder go on; "" if a debugger stops it.
void doctor_mend_stopped(const struct fl_uffd_holder *holder, char *buf, size_t size);
// Writes a command that has the server take the protection from pages that were left protected.
void doctor_mend_protected(const struct fl_uffd_case *uffd, char *buf, size_t size);
// Says which processes could not be seen; NULL if all were.
const char *doctor_explain_view(const struct fl_diagnosis *found);
// Writes the end of a sentence that says which process's memory a task waits for; "" if it is the
// task's own.
void doctor_whose(const struct fl_diagnosis *found, const struct fl_waiting_task *task, char *buf,
                  size_t size);
// Says what can be done for a task that waits although no process holds the userfaultfd.
extern const char doctor_unexplained[];

#endif
