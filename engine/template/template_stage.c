// SPDX-License-Identifier: Apache-2.0
#include "engine/template/template_stage.h"

bool fl_template_may_move(enum fl_template_stage from, enum fl_template_stage to)
{
    static const bool may[FL_TEMPLATE_STAGES][FL_TEMPLATE_STAGES] = {
        [FL_TEMPLATE_RESTING] = {[FL_TEMPLATE_CHECKING] = true,
                                 [FL_TEMPLATE_FILLING] = true,
                                 [FL_TEMPLATE_GONE] = true},
        [FL_TEMPLATE_CHECKING] =
            {[FL_TEMPLATE_CHECKING_FIRST] = true, [FL_TEMPLATE_RESTING] = true},
        [FL_TEMPLATE_CHECKING_FIRST] = {[FL_TEMPLATE_RESTING] = true},
        [FL_TEMPLATE_FILLING] = {[FL_TEMPLATE_RESTING] = true},
    };
    return may[from][to];
}
