// SPDX-License-Identifier: Apache-2.0
//
// A VM whose fault handler is gone, seen from outside: what can be learned of it from /proc and
// from its own userfaultfd, without its help, so that a server can serve it again. Needs the right
// to trace the VMM (root). Any thread.
//
// What is needed is its userfaultfd (taken out of the VMM), the memory that is registered with it
// (smaps), and what each piece of it is in the image (the layout). If a Faultline served it and
// something still holds the state that was kept of it (vm_state.h), the layout, the image's name
// and what the guest has given back come from there. Else the user gives the layout, or it is found
// by what the memory has in it (placement.h).
#ifndef FAULTLINE_RESCUE_ORPHAN_LOOK_H
#define FAULTLINE_RESCUE_ORPHAN_LOOK_H

#include <sys/types.h>

#include "engine/rescue/orphan.h"

// `fd`: which of its userfaultfds; -1: the one it has, or the one with faults waiting. 0, or -errno
// with a sentence: -ESRCH there is no such process, or it is dying and its descriptors
// are gone; -ENXIO it has no (such) userfaultfd; -ENOTUNIQ it has several; -EXDEV
// /proc shows another PID namespace; -EPERM ...
int fl_orphan_look(pid_t pid, int fd, struct fl_orphan *ret_orphan, struct fl_error *ret_error);

#endif
