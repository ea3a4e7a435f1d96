// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_TOOLS_VERBS_RESCUE_ABORT_H
#define FAULTLINE_TOOLS_VERBS_RESCUE_ABORT_H

#include "tools/verbs/rescue.h"

// Ends the FUSE connection of this number, or the one that is mounted at this directory, unless a
// server answers it and there is no --force. Returns EXIT_DONE, or EXIT_FAILED after a sentence.
int rescue_abort(const struct rescue *rescue, const char *target);

#endif
