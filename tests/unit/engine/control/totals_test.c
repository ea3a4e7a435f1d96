// SPDX-License-Identifier: Apache-2.0
//
// Every counter that is shown is a total that goes on, but for those of the processes themselves.
#include <criterion/criterion.h>
#include <string.h>

#include "engine/control/counters.h"
#include "engine/control/stats.h"
#include "engine/control/totals.h"

TestSuite(totals, .timeout = 20);

static struct fl_totals totals;

static unsigned series_of(const char *name)
{
    unsigned count = 0;
    for (unsigned i = 0; i < totals.count; i++)
        count += strcmp(totals.series[i].name, name) == 0;
    return count;
}

Test(totals, are_all_counters)
{
    fl_totals_list(&totals);
    cr_assert_lt(totals.count, FL_TOTALS_MOST);
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        const struct fl_counter_row *row = &fl_counter_rows[i];
        bool of_process = strstr(row->lives, "_process.") != NULL;
        bool total = row->kind == FL_KIND_COUNTER && row->metric && !of_process;
        if (row->metric)
            cr_assert_eq(series_of(row->metric), total, "%s (%s)", row->metric, row->lives);
    }
}

Test(totals, have_names_that_fit)
{
    fl_totals_list(&totals);
    for (unsigned i = 0; i < totals.count; i++) {
        cr_assert_lt(strlen(totals.series[i].name), FL_LEDGER_NAME, "%s", totals.series[i].name);
        cr_assert_eq(series_of(totals.series[i].name), 1, "%s", totals.series[i].name);
    }
}
