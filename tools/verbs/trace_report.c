// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/trace_report.h"

#include <errno.h>
#include <stdlib.h>

static int compare_pages(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void count_stretches(uint64_t *pages, struct trace_report *report)
{
    uint64_t length = 0;
    qsort(pages, report->pages, sizeof(*pages), compare_pages);
    for (uint64_t i = 0; i < report->pages; i++) {
        bool goes_on = i > 0 && pages[i] == pages[i - 1] + 1;
        length = goes_on ? length + 1 : 1;
        report->stretches += !goes_on;
        report->longest = length > report->longest ? length : report->longest;
    }
}

static void find_times(uint64_t *ms, struct trace_report *report)
{
    qsort(ms, report->pages, sizeof(*ms), compare_pages);
    report->first_ms = (uint32_t)ms[0];
    report->half_ms = (uint32_t)ms[(report->pages - 1) / 2];
    report->last_ms = (uint32_t)ms[report->pages - 1];
}

int trace_report_make(const struct fl_image *image, const struct fl_trace *trace,
                      struct trace_report *ret_report)
{
    const struct fl_trace_entry *entries = fl_trace_entries(trace);
    struct trace_report report = {
        .image_pages = fl_image_pages(image),
        .pages = fl_trace_count(trace),
        .runs = fl_trace_runs(trace),
    };
    uint64_t *numbers = malloc(report.pages * sizeof(*numbers));
    if (!numbers)
        return -ENOMEM;
    for (uint64_t i = 0; i < report.pages; i++) {
        report.zero_pages += fl_image_run(image, entries[i].page, 1).zero;
        report.seen_in_all += entries[i].seen == report.runs;
        report.seen_in_most += 2 * (uint64_t)entries[i].seen > report.runs;
        numbers[i] = entries[i].page;
    }
    count_stretches(numbers, &report);
    for (uint64_t i = 0; i < report.pages; i++)
        numbers[i] = entries[i].ms;
    find_times(numbers, &report);
    free(numbers);
    *ret_report = report;
    return 0;
}
