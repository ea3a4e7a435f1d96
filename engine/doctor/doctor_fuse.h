// SPDX-License-Identifier: Apache-2.0
//
// FUSE connections, and who waits for an answer of one. A file system whose server is gone makes
// whoever looks at it wait, too: so only what the kernel says of mounts and connections is read,
// and never a path in one of them.
#ifndef FAULTLINE_DOCTOR_DOCTOR_FUSE_H
#define FAULTLINE_DOCTOR_DOCTOR_FUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/doctor/diagnosis.h"

struct fl_proc_fd;

// Finds the connections and their mounts, without holders and waiters. 0 or -ENOMEM.
int fl_doctor_fuse_find(struct fl_diagnosis *found);
// Notes the holder of a connection, if it is one. 0 or -ENOMEM.
int fl_doctor_fuse_note_holder(struct fl_diagnosis *found, const struct fl_proc_fd *fd,
                               const struct fl_uffd_holder *holder);
// True if a task that sleeps in this function of the kernel's may wait for a server of files.
bool fl_doctor_fuse_may_wait(const struct fl_diagnosis *found, const char *wchan);
// Whether it does, and for which: from its stack, and from what its process has mapped. May take
// 300 ms, if its memory is locked by who waits.
bool fl_doctor_fuse_waits(const struct fl_diagnosis *found, const char *wchan,
                          struct fl_waiting_task *task);
// Which wait too long, as fl_doctor_judge(). False if one does, or one that is held is stopped.
bool fl_doctor_fuse_judge(struct fl_diagnosis *found, int64_t patience_ms);
// Marks holders that were not stopped before as running, as fl_doctor_compare().
void fl_doctor_fuse_compare(const struct fl_diagnosis *first, struct fl_diagnosis *second);

#endif
