// SPDX-License-Identifier: Apache-2.0
//
// Finds out whether a VM waits because there is no page of 2 MiB for it, and not because of its
// handler. Each call reads /proc and /sys anew.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_POOL_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_POOL_H

#include <stddef.h>
#include <sys/types.h>

enum doctor_lack {
    DOCTOR_LACKS_NOTHING,
    DOCTOR_LACKS_PAGES, // none is free in the pool
    DOCTOR_LACKS_ROOM,  // the hugetlb cgroup of the handler is full
};

// vm is a process whose memory is registered with a userfaultfd; handler is its handler, or 0 if
// that is not known.
enum doctor_lack doctor_lack(pid_t vm, pid_t handler);
const char *doctor_explain_lack(enum doctor_lack lack);
// Writes the command that gives the VM all of its pages, or "".
void doctor_mend_lack(enum doctor_lack lack, pid_t vm, pid_t handler, char *buf, size_t size);
// Writes the state of the pool as one line.
void doctor_show_pool(char *buf, size_t size);

#endif
