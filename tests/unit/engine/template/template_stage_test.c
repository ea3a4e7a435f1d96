// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <string.h>

#include "engine/template/template_stage.h"

Test(template_stage, makes_the_moves_of_its_table_and_no_others)
{
    // A letter for each stage in the order of the enum, and where it may go.
    static const char letter[] = "RCFXG";
    static const char *const moves[] = {
        [FL_TEMPLATE_RESTING] = "CXG",
        [FL_TEMPLATE_CHECKING] = "FR",
        [FL_TEMPLATE_CHECKING_FIRST] = "R",
        [FL_TEMPLATE_FILLING] = "R",
        [FL_TEMPLATE_GONE] = "",
    };
    for (int from = 0; from < FL_TEMPLATE_STAGES; from++) {
        for (int to = 0; to < FL_TEMPLATE_STAGES; to++) {
            bool expected = strchr(moves[from], letter[to]) != NULL;
            cr_expect_eq(
                fl_template_may_move((enum fl_template_stage)from, (enum fl_template_stage)to),
                expected, "from %c to %c", letter[from], letter[to]);
        }
    }
}
