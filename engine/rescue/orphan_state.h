// SPDX-License-Identifier: Apache-2.0
//
// What a Faultline kept of a VM, looked for among the descriptors of all processes. Any thread.
#ifndef FAULTLINE_RESCUE_ORPHAN_STATE_H
#define FAULTLINE_RESCUE_ORPHAN_STATE_H

#include <stdbool.h>

#include "engine/host/proc_fd.h"
#include "engine/rescue/orphan.h"
#include "snapshot/error.h"

// Fills in state_fd, state, state_holder, state_unreadable. 0 also if there is none. -ENOTUNIQ with
// a sentence if there are several; -ENOMEM.
int fl_orphan_find_state(struct fl_orphan *orphan, struct fl_error *ret_error);

// If the descriptor is such a state: of which process it is, and which image it names. Reads /proc
// only, and looks at no more than that.
bool fl_orphan_state_head(const struct fl_proc_fd *fd, pid_t *ret_pid,
                          char ret_image[FL_IMAGE_NAME_BYTES]);

#endif
