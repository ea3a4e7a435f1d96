// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/report_axis.h"

#include <math.h>
#include <string.h>

#include "tools/verbs/report.h"

enum { MARKS_ACROSS = 8, MARKS_UP = 4 };

double axis_place(const struct axis *axis, double value)
{
    double share = axis->logarithmic ? log(value / axis->low) / log(axis->high / axis->low)
                                     : (value - axis->low) / (axis->high - axis->low);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return axis->from + share * (axis->to - axis->from);
}

double axis_value(const struct axis *axis, double place)
{
    double share = (place - axis->from) / (axis->to - axis->from);
    return axis->logarithmic ? axis->low * pow(axis->high / axis->low, share)
                             : axis->low + share * (axis->high - axis->low);
}

double axis_step(double span, unsigned marks)
{
    double step = pow(10, floor(log10(span / marks)));
    if (step * marks >= span)
        return step;
    if (step * 2 * marks >= span)
        return step * 2;
    return step * 5 * marks >= span ? step * 5 : step * 10;
}

void chart_text(FILE *out, double x, double y, const char *anchor, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, text);
}

void chart_begin(FILE *out, const char *class, const char *title, const char *describe)
{
    fprintf(out,
            "<div class=\"wide %s\" tabindex=\"0\" role=\"group\" aria-label=\"%s\">"
            "<svg class=\"chart\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s. %s\">\n",
            class, title, CHART_WIDTH, CHART_HEIGHT, title, describe);
}

// A mark is a round number: "10 ms", and not "10.0 ms".
static const char *mark_text(double ns, char text[REPORT_TEXT])
{
    char *point = strchr(report_time(ns / 1e3, text), '.');
    char *unit = strchr(text, ' ');
    if (!point || !unit)
        return text;
    char *end = unit;
    while (end > point && (end[-1] == '0' || end[-1] == '.'))
        end--;
    memmove(end, unit, strlen(unit) + 1);
    return text;
}

static void time_mark(FILE *out, const struct axis *axis, double ns)
{
    char text[REPORT_TEXT];
    double x = axis_place(axis, ns);
    fprintf(out, "<path class=\"grid\" d=\"M%.1f,%dV%d\"/>", x, PLOT_TOP, PLOT_BOTTOM + 5);
    chart_text(out, x, PLOT_BOTTOM + 20, "middle", mark_text(ns, text));
}

void chart_time_axis(FILE *out, const struct axis *axis, const char *label)
{
    double step = axis->logarithmic ? 0 : axis_step(axis->high - axis->low, MARKS_ACROSS);
    if (axis->logarithmic) {
        for (double ns = pow(10, ceil(log10(axis->low) - 1e-9)); ns <= axis->high * 1.0001;
             ns *= 10)
            time_mark(out, axis, ns);
    } else {
        for (unsigned i = 0; axis->low + i * step <= axis->high * 1.0001; i++)
            time_mark(out, axis, axis->low + i * step);
    }
    chart_text(out, (PLOT_LEFT + PLOT_RIGHT) / 2.0, CHART_HEIGHT - 6, "middle", label);
}

static void value_mark(FILE *out, const struct axis *axis, double value, const char *text)
{
    double y = axis_place(axis, value);
    fprintf(out, "<path class=\"grid\" d=\"M%d,%.1fH%d\"/>", PLOT_LEFT - 5, y, PLOT_RIGHT);
    chart_text(out, PLOT_LEFT - 9, y + 4, "end", text);
}

static void log_marks(FILE *out, const struct axis *axis)
{
    char text[REPORT_TEXT];
    for (double ns = pow(10, ceil(log10(axis->low) - 1e-9)); ns <= axis->high * 1.0001; ns *= 10)
        value_mark(out, axis, ns, mark_text(ns, text));
}

// Of bytes in powers of two, of anything else whole numbers.
static void linear_marks(FILE *out, const struct axis *axis, bool bytes)
{
    char text[REPORT_TEXT];
    double step = 1;
    if (bytes)
        while (step * MARKS_UP < axis->high)
            step *= 2;
    else
        step = axis_step(axis->high, MARKS_UP);
    step = step < 1 ? 1 : step;
    for (unsigned i = 0; i * step <= axis->high * 1.0001; i++)
        value_mark(out, axis, i * step,
                   bytes ? report_bytes((uint64_t)(i * step), text)
                         : report_count((uint64_t)(i * step), text));
}

void chart_value_axis(FILE *out, const struct axis *axis, const char *label, bool bytes)
{
    if (axis->logarithmic)
        log_marks(out, axis);
    else
        linear_marks(out, axis, bytes);
    fprintf(out,
            "<text transform=\"translate(14,%d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
            (PLOT_TOP + PLOT_BOTTOM) / 2, label);
}
