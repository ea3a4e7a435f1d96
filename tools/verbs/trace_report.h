// SPDX-License-Identifier: Apache-2.0
//
// What there is to say of a trace: figures, and a picture.
#ifndef FAULTLINE_TOOLS_VERBS_TRACE_REPORT_H
#define FAULTLINE_TOOLS_VERBS_TRACE_REPORT_H

#include <stdio.h>

#include "snapshot/read.h"

struct trace_report {
    uint64_t image_pages;
    uint64_t pages; // in the trace, zero pages among them
    uint64_t zero_pages;
    uint32_t runs;         // recordings it was merged from
    uint64_t seen_in_all;  // pages that all recordings have
    uint64_t seen_in_most; // more than half of them
    uint32_t first_ms, half_ms, last_ms;
    uint64_t stretches; // of consecutive pages
    uint64_t longest;   // of them, pages
};

// 0 or -ENOMEM.
int trace_report_make(const struct fl_image *image, const struct fl_trace *trace,
                      struct trace_report *ret_report);

// An SVG of which parts of memory were touched when. -ENOMEM; errors of writing are out's.
int trace_svg_write(FILE *out, const char *name, const struct trace_report *report,
                    const struct fl_trace *trace);

#endif
