// SPDX-License-Identifier: Apache-2.0
//
// What a Faultline kept of a VM, looked for among the descriptors of all processes. Any thread.
#ifndef FAULTLINE_ENGINE_ORPHAN_STATE_H
#define FAULTLINE_ENGINE_ORPHAN_STATE_H

#include <stddef.h>

#include "engine/orphan.h"

// Fills in state_fd, state, state_holder, state_unreadable. 0 also if there is none. -ENOTUNIQ with
// a sentence if there are several; -ENOMEM.
int fl_orphan_find_state(struct fl_orphan *orphan, char *reason, size_t size);

// The image that the state kept of a process names, if there is one such state: without a look at
// the process itself.
bool fl_orphan_kept_image(pid_t pid, char *ret_name, size_t size);

// True if each range lies in regions of the layout, and is of its page size.
bool fl_orphan_covered(const struct fl_orphan *orphan, const struct fl_layout *layout);

#endif
