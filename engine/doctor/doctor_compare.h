// SPDX-License-Identifier: Apache-2.0
//
// What two walks agree on. Pure functions.
//
// A walk takes time, in which VMs come, go and are served: that a fault waits now and one waits a
// moment later is what a busy server looks like. Trouble is a task that has slept through two
// looks: with the same identity, and having left no processor in between (its count of context
// switches is the same), so that it is one wait. Where only the VM itself holds its userfaultfd,
// no process can have answered in between either, and each wait is one.
#ifndef FAULTLINE_DOCTOR_DOCTOR_COMPARE_H
#define FAULTLINE_DOCTOR_DOCTOR_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/doctor/diagnosis.h"

// Marks in the second walk's findings what is not as it was in the first, elapsed_ms before: tasks
// that have run since, holders that were not stopped then. A wait that the kernel does not tell is
// as long as that.
void fl_doctor_compare(const struct fl_diagnosis *first, struct fl_diagnosis *second,
                       int64_t elapsed_ms);
// True if a wait is in it that was seen for less than the patience, and of which no more is known.
bool fl_doctor_must_watch(const struct fl_diagnosis *first, const struct fl_diagnosis *second,
                          int64_t patience_ms);
// True if the task belongs to a VM whose faults no process can have answered: only the VM itself
// holds its userfaultfds, and faults wait on each of them.
bool fl_doctor_has_no_handler(const struct fl_diagnosis *found, const struct fl_waiting_task *task);

#endif
