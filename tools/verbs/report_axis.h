// SPDX-License-Identifier: Apache-2.0
//
// Axes of the charts of report_charts.c and report_latency.c: a scale from values to places, and
// its marks. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_REPORT_AXIS_H
#define FAULTLINE_TOOLS_VERBS_REPORT_AXIS_H

#include <stdbool.h>
#include <stdio.h>

// Of every chart: its size, and the part of it in which it draws.
enum {
    CHART_WIDTH = 1024,
    CHART_HEIGHT = 260,
    PLOT_LEFT = 84,
    PLOT_RIGHT = CHART_WIDTH - 28,
    PLOT_TOP = 22,
    PLOT_BOTTOM = CHART_HEIGHT - 46,
};

struct axis {
    double low, high; // values; of a logarithmic axis above 0
    bool logarithmic;
    double from, to; // places
};

double axis_place(const struct axis *axis, double value);
double axis_value(const struct axis *axis, double place);
// 1, 2 or 5 times a power of ten, so that about `marks` of such steps fill the span.
double axis_step(double span, unsigned marks);

// The frame of a chart: <svg>, its title for those who hear it, and what is behind its content.
// `describe`: a sentence. Ends with </svg> by the caller.
void chart_begin(FILE *out, const char *class, const char *title, const char *describe);
// Marks and lines of time in nanoseconds to the right, and what the axis is.
void chart_time_axis(FILE *out, const struct axis *axis, const char *label);
// Marks and lines of anything upwards. `format` writes a mark.
void chart_value_axis(FILE *out, const struct axis *axis, const char *label, bool bytes);
void chart_text(FILE *out, double x, double y, const char *anchor, const char *text);

#endif
