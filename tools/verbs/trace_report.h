// SPDX-License-Identifier: Apache-2.0
//
// Figures and a picture of a trace, for `faultline trace show`.
#ifndef FAULTLINE_TOOLS_VERBS_TRACE_REPORT_H
#define FAULTLINE_TOOLS_VERBS_TRACE_REPORT_H

#include <stdio.h>

#include "snapshot/read.h"

struct trace_report {
    uint64_t image_pages;
    uint64_t pages; // all pages of the trace, zero pages among them
    uint64_t zero_pages;
    uint32_t runs;         // recordings that the trace was merged from
    uint64_t seen_in_all;  // pages that all recordings have
    uint64_t seen_in_most; // pages that more than half of them have
    uint32_t first_ms, half_ms, last_ms;
    uint64_t stretches; // runs of consecutive pages
    uint64_t longest;   // pages of the longest stretch
};

// Returns 0 or -ENOMEM.
int trace_report_make(const struct fl_image *image, const struct fl_trace *trace,
                      struct trace_report *ret_report);

// Writes an SVG that shows which parts of memory were touched when. Returns 0 or -ENOMEM; the
// caller finds errors of writing with ferror(out).
int trace_svg_write(FILE *out, const char *name, const struct trace_report *report,
                    const struct fl_trace *trace);

#endif
