// SPDX-License-Identifier: Apache-2.0
//
// The table of a template's moves: exactly those that its header tells.
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
    for (unsigned from = 0; from < FL_TEMPLATE_STAGES; from++) {
        for (unsigned to = 0; to < FL_TEMPLATE_STAGES; to++) {
            bool expected = strchr(moves[from], letter[to]) != NULL;
            cr_expect_eq(fl_states_may(&fl_template_stages, from, to), expected, "%s to %s",
                         fl_template_stages.name[from], fl_template_stages.name[to]);
        }
    }
}

// A reader that goes through it, or is about to, would go through what is freed.
Test(template_stage, goes_only_while_no_reader_has_it)
{
    for (unsigned from = 0; from < FL_TEMPLATE_STAGES; from++)
        cr_expect_eq(fl_states_may(&fl_template_stages, from, FL_TEMPLATE_GONE),
                     from == FL_TEMPLATE_RESTING, "%s", fl_template_stages.name[from]);
}
