// SPDX-License-Identifier: Apache-2.0
//
// How the control API names the phase of a capture.
#ifndef FAULTLINE_CONTROL_CAPTURE_NAME_H
#define FAULTLINE_CONTROL_CAPTURE_NAME_H

#include "engine/accept/capture_session_state.h"

// NULL: there is none.
static inline const char *fl_capture_phase_name(const struct fl_capture_session *session)
{
    static const char *const name[] = {
        [FL_CAPTURE_NONE] = "beginning", [FL_CAPTURE_ARMING] = "arming",
        [FL_CAPTURE_READY] = "ready",    [FL_CAPTURE_FREEZING] = "freezing",
        [FL_CAPTURE_FROZEN] = "frozen",  [FL_CAPTURE_COPIED] = "copied",
        [FL_CAPTURE_KEPT] = "kept",      [FL_CAPTURE_FAILED] = "failed",
    };
    if (!session)
        return "none";
    return name[session->failed ? FL_CAPTURE_FAILED : session->phase];
}

#endif
