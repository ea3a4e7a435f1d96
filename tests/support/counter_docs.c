// SPDX-License-Identifier: Apache-2.0
//
// Prints docs/metrics.md, made from the table of counters (engine/control/counters.h). The test
// metrics_documented compares the two.
#include <stdio.h>

#include "engine/control/counters.h"

static void print_row(const struct fl_counter_row *row)
{
    if (row->metric)
        printf("- `faultline_%s`, %s", row->metric,
               row->kind == FL_KIND_COUNTER ? "counter" : "gauge");
    else
        printf("- in the status only");
    if (row->json)
        printf("%s `%s`", row->metric ? "; status" : ":", row->json);
    printf("\n  %s\n", row->help);
}

int main(void)
{
    puts("# Metrics\n\n"
         "Every number that a server gives: its name in `GET /metrics`, its key in `GET "
         "/v1/status`, and its\n"
         "meaning. Counters begin at 0 with each engine; those of the keeper outlive engines. Two "
         "metrics are\n"
         "families and no rows of this list: `faultline_degraded{what=...}`, 1 if the server lacks "
         "this and\n"
         "serves all the same, and the summary `faultline_fault_seconds`, the time from the "
         "reading of a fault\n"
         "to its page being there (status `latency_us`).\n\n"
         "This page is made from the table in `engine/control/counters.c`; do not edit it.\n");
    for (size_t i = 0; i < fl_counter_row_count; i++)
        print_row(&fl_counter_rows[i]);
    return 0;
}
