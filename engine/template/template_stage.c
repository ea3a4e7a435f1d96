// SPDX-License-Identifier: Apache-2.0
#include "engine/template/template_stage.h"

static const char *const name[FL_TEMPLATE_STAGES] = {
    [FL_TEMPLATE_RESTING] = "resting",
    [FL_TEMPLATE_CHECKING] = "checking",
    [FL_TEMPLATE_CHECKING_FIRST] = "checking_first",
    [FL_TEMPLATE_FILLING] = "filling",
    [FL_TEMPLATE_GONE] = "gone",
};

static const uint32_t follow[FL_TEMPLATE_STAGES] = {
    [FL_TEMPLATE_RESTING] =
        FL_TO(FL_TEMPLATE_CHECKING) | FL_TO(FL_TEMPLATE_FILLING) | FL_TO(FL_TEMPLATE_GONE),
    [FL_TEMPLATE_CHECKING] = FL_TO(FL_TEMPLATE_CHECKING_FIRST) | FL_TO(FL_TEMPLATE_RESTING),
    [FL_TEMPLATE_CHECKING_FIRST] = FL_TO(FL_TEMPLATE_RESTING),
    [FL_TEMPLATE_FILLING] = FL_TO(FL_TEMPLATE_RESTING),
    [FL_TEMPLATE_GONE] = 0,
};

const struct fl_states fl_template_stages = {
    .object = "template", .name = name, .follow = follow, .count = FL_TEMPLATE_STAGES};
