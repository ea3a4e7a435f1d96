// SPDX-License-Identifier: Apache-2.0
//
// Prints docs/metrics.md, made from the table of counters (engine/control/counters.h). The test
// metrics_documented compares the two.
#include <stdio.h>

#include "engine/control/counters.h"
#include "engine/control/families.h"

static void print_row(const struct fl_counter_row *row)
{
    if (row->metric)
        printf("- `%s%s`, %s", fl_counter_row_prefix(row), row->metric,
               row->kind == FL_KIND_COUNTER ? "counter" : "gauge");
    else
        printf("- in the status only");
    if (row->json)
        printf("%s `%s`", row->metric ? "; status" : ":", row->json);
    printf("\n  %s\n", row->help);
}

static void print_family(const struct fl_family_row *row)
{
    printf("- `faultline_%s`, %s", row->metric, row->type);
    if (row->labels)
        printf(" by `%s`", row->labels);
    if (row->json)
        printf("; status `%s`", row->json);
    printf("\n  %s\n", row->help);
}

int main(void)
{
    puts("# Metrics\n\n"
         "Every number that a server gives: its name in `GET /metrics`, its key in `GET "
         "/v1/status`, and its\n"
         "meaning. What is not known just now is left out of the metrics, and `null` in the "
         "status.\n\n"
         "The buckets of histograms end at powers of two, in seconds: `le` is 0.000001024, twice "
         "that, and so on\n"
         "to 17.179869184. They are the same in all versions and on all hosts, so they can be "
         "added up.\n"
         "`stage` is `cached` for a fault that was answered at once, `read` for one that waited "
         "(for storage nearly\n"
         "always), and `replay` for one whose page was of a working set that was being streamed "
         "in.\n"
         "`image` is the name of an image, for 64 of them at most; all others together are "
         "`other`.\n"
         "Counters and histograms go on with the next engine, whatever became of the one before; "
         "gauges are of "
         "this moment.\n"
         "`process_*` are of the engine, which is another process after a death or an upgrade.\n\n"
         "This page is made from the tables in `engine/control/counters.c` and "
         "`engine/control/families.c`; do not\n"
         "edit it.\n\n"
         "## With labels\n");
    for (size_t i = 0; i < FL_FAMILIES; i++)
        print_family(&fl_family_rows[i]);
    puts("\n## Single numbers\n");
    for (size_t i = 0; i < fl_counter_row_count; i++)
        print_row(&fl_counter_rows[i]);
    return 0;
}
