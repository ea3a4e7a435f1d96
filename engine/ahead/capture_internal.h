// SPDX-License-Identifier: Apache-2.0
//
// What the files of a capture share.
#ifndef FAULTLINE_AHEAD_CAPTURE_INTERNAL_H
#define FAULTLINE_AHEAD_CAPTURE_INTERNAL_H

#include "engine/vm/capture_state.h"

// Read from the VM at once: what a slice copies.
#define FL_CAPTURE_BOUNCE ((size_t)256 << 10)

struct fl_capture *fl_capture_ref(struct fl_capture *capture);

#endif
