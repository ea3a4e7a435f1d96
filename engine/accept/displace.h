// SPDX-License-Identifier: Apache-2.0
//
// New memory where another VM's was. A process that lives on may unmap the memory of a VM and hand
// over new memory at the same addresses with another userfaultfd. The kernel fills by the address
// alone (findings/uffd-fills-anothers-memory.sh): what the worker of the VM before still has in
// hand would get into the memory of the new one. So the one before ends first, whether its socket
// has closed or not.
#ifndef FAULTLINE_ACCEPT_DISPLACE_H
#define FAULTLINE_ACCEPT_DISPLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/host/region.h"

struct fl_engine;

// Reader thread. True while there is a VM of another userfaultfd that had any of this memory of the
// process: its worker is told to let go of it, and the caller asks again. False: there is none, and
// none can write there any more.
bool fl_displace(struct fl_engine *engine, pid_t pid, int uffd, const struct fl_layout *layout);

#endif
