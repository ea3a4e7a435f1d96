// SPDX-License-Identifier: Apache-2.0
//
// VMs that wait for a page of 2 MiB which is not to be had: no fault of their handler's.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_POOL_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_POOL_H

#include <stddef.h>
#include <sys/types.h>

enum doctor_lack {
    DOCTOR_LACKS_NOTHING,
    DOCTOR_LACKS_PAGES, // none is free in the pool
    DOCTOR_LACKS_ROOM,  // the hugetlb cgroup of the handler is full
};

// Of a process with memory registered with a userfaultfd, and of its handler (0: not known). Looks
// now.
enum doctor_lack doctor_lack(pid_t vm, pid_t handler);
const char *doctor_explain_lack(enum doctor_lack lack);
// The command that gives the VM all of its pages; the pool as it is, as a line; or empty.
void doctor_mend_lack(enum doctor_lack lack, pid_t vm, pid_t handler, char *buf, size_t size);
void doctor_show_pool(char *buf, size_t size);

#endif
