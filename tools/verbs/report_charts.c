// SPDX-License-Identifier: Apache-2.0
//
// What happened over time: faults, pages, and how long single faults took. Each is drawn twice: on
// an axis that ends when nearly all had come, and on a logarithmic one that ends with the last
// event.
#include <math.h>
#include <stdlib.h>

#include "tools/verbs/report.h"
#include "tools/verbs/report_axis.h"

enum { BARS = 120, DOTS_MOST = 1500 };
#define TIME_LEAST 1e6   // nanoseconds: an axis is no shorter
#define NEARLY_ALL 0.995 // of all events are on the linear axis
#define TOOK_LEAST 1e3   // nanoseconds
static const char time_label[] = "time since the beginning of the history";

// --- how far the axes go ---

// Of the faults (-1), or of the pages of all kinds (0).
struct kinds {
    int first, end;
};
static const struct kinds of_faults = {-1, 0};
static const struct kinds of_pages = {0, REPORT_NEVER};
static const struct kinds of_all = {-1, REPORT_NEVER};

static const struct report_buckets *times_of(const struct report *report, int kind)
{
    return kind < 0 ? &report->over_time : &report->came[kind];
}

static double count_by(const struct report *report, struct kinds kinds, double ns)
{
    double count = 0;
    for (int i = kinds.first; i < kinds.end; i++) {
        const struct report_buckets *buckets = times_of(report, i);
        for (size_t at = 0; at < buckets->count && buckets->bucket[at].to <= ns; at++)
            count += (double)buckets->bucket[at].count;
    }
    return count;
}

// The end of the first bucket by which this share of them had come.
static double time_of(const struct report *report, struct kinds kinds, double share)
{
    double best = INFINITY;
    double all = count_by(report, kinds, INFINITY);
    for (int i = kinds.first; i < kinds.end; i++) {
        const struct report_buckets *buckets = times_of(report, i);
        for (size_t at = 0; at < buckets->count; at++) {
            double ns = buckets->bucket[at].to;
            if (ns < best && count_by(report, kinds, ns) >= share * all)
                best = ns;
        }
    }
    return isfinite(best) ? best : TIME_LEAST;
}

static double time_of_first(const struct report *report)
{
    double first = TIME_LEAST;
    for (int i = of_all.first; i < of_all.end; i++) {
        const struct report_buckets *buckets = times_of(report, i);
        if (buckets->count > 0 && buckets->bucket[0].from < first)
            first = buckets->bucket[0].from;
    }
    return first > 1e4 ? first : 1e4;
}

static struct axis time_axis(const struct report *report, bool logarithmic)
{
    struct axis axis = {.logarithmic = logarithmic, .from = PLOT_LEFT, .to = PLOT_RIGHT};
    double share = logarithmic ? 1 : NEARLY_ALL;
    double faults = time_of(report, of_faults, share);
    double pages = time_of(report, of_pages, share);
    axis.high = (faults > pages ? faults : pages) * (logarithmic ? 1 : 1.05);
    axis.high = axis.high > TIME_LEAST ? axis.high : TIME_LEAST;
    axis.low = logarithmic ? pow(10, floor(log10(time_of_first(report)))) : 0;
    if (logarithmic)
        axis.high = pow(10, ceil(log10(axis.high) * 2) / 2);
    if (axis.high <= axis.low) // nothing has a time
        axis.high = 10 * axis.low;
    return axis;
}

static const char *class_of(const struct axis *axis)
{
    return axis->logarithmic ? "log" : "linear";
}

// --- faults ---

// Of the buckets, what falls into [from, to): a bucket that is cut is taken for even.
static double count_within(const struct report_buckets *buckets, double from, double to)
{
    double count = 0;
    for (size_t i = 0; i < buckets->count; i++) {
        const struct report_bucket *bucket = &buckets->bucket[i];
        double low = bucket->from > from ? bucket->from : from;
        double high = bucket->to < to ? bucket->to : to;
        if (high > low)
            count += (double)bucket->count * (high - low) / (bucket->to - bucket->from);
    }
    return count;
}

// By the log, if that has all faults; else by the buckets, which are wider than bars may be.
static void fill_bars(const struct report *report, const struct axis *axis, double bars[BARS])
{
    double width = (double)(PLOT_RIGHT - PLOT_LEFT) / BARS;
    bool exact = report->log.count == report->faults;
    for (int i = 0; i < BARS; i++) {
        double from = i == 0 && axis->logarithmic ? 0 : axis_value(axis, PLOT_LEFT + i * width);
        double to = axis_value(axis, PLOT_LEFT + (i + 1) * width);
        bars[i] = exact ? 0 : count_within(&report->over_time, from, to);
    }
    for (size_t i = 0; exact && i < report->log.count; i++) {
        double ns = (double)report->log.fault[i].at_us * 1e3;
        double place = axis_place(axis, ns > axis->low ? ns : axis->low);
        int bar = (int)((place - PLOT_LEFT) / width);
        if (ns <= axis->high)
            bars[bar < BARS ? bar : BARS - 1]++;
    }
}

static void draw_faults(FILE *out, const struct report *report, const struct axis *axis)
{
    double bars[BARS];
    struct axis up = {.from = PLOT_BOTTOM, .to = PLOT_TOP, .high = 1};
    double width = (double)(PLOT_RIGHT - PLOT_LEFT) / BARS;
    fill_bars(report, axis, bars);
    for (int i = 0; i < BARS; i++)
        up.high = bars[i] > up.high ? bars[i] : up.high;
    chart_begin(out, class_of(axis), "Faults over time",
                "Each bar is as high as the number of faults that were resolved within its time");
    chart_value_axis(out, &up, "faults in each bar", false);
    chart_time_axis(out, axis, time_label);
    fputs("<g class=\"bars\">", out);
    for (int i = 0; i < BARS; i++) {
        char from[REPORT_TEXT];
        char to[REPORT_TEXT];
        double x = PLOT_LEFT + i * width;
        double y = axis_place(&up, bars[i]);
        if (bars[i] <= 0)
            continue;
        y = y > PLOT_BOTTOM - 1.5 ? PLOT_BOTTOM - 1.5 : y; // one that is rare can be seen
        fprintf(out,
                "<path data-faults=\"%g\" d=\"M%.1f,%dV%.1fh%.1fV%dz\"><title>%g faults, %s to %s"
                "</title></path>\n",
                bars[i], x, PLOT_BOTTOM, y, width - 1, PLOT_BOTTOM, round(bars[i] * 10) / 10,
                report_time(axis_value(axis, x) / 1e3, from),
                report_time(axis_value(axis, x + width) / 1e3, to));
    }
    fputs("</g></svg></div>\n", out);
}

// --- pages ---

// From right to left along the lower edge, and back along the upper one.
static void draw_area(FILE *out, const struct report *report, enum report_came came,
                      const double low[BARS + 1], const double high[BARS + 1])
{
    double width = (double)(PLOT_RIGHT - PLOT_LEFT) / BARS;
    char bytes[REPORT_TEXT];
    fprintf(out, "<path class=\"k-%s\" d=\"M%d,%.1f", report_cames[came].name, PLOT_LEFT, high[0]);
    for (int i = 1; i <= BARS; i++)
        fprintf(out, "L%.1f,%.1f", PLOT_LEFT + i * width, high[i]);
    for (int i = BARS; i >= 0; i--)
        fprintf(out, "L%.1f,%.1f", PLOT_LEFT + i * width, low[i]);
    fprintf(out, "z\"><title>%s: %s</title></path>\n", report_cames[came].title,
            report_bytes(report->came[came].sum * report->page_size, bytes));
}

static void draw_pages(FILE *out, const struct report *report, const struct axis *axis)
{
    double low[BARS + 1];
    double high[BARS + 1];
    double bytes[BARS + 1] = {0};
    uint64_t all = 0;
    double width = (double)(PLOT_RIGHT - PLOT_LEFT) / BARS;
    for (unsigned i = 0; i < REPORT_NEVER; i++)
        all += report->came[i].sum;
    struct axis up = {
        .from = PLOT_BOTTOM, .to = PLOT_TOP, .high = (double)(all * report->page_size)};
    up.high = up.high > 0 ? up.high : (double)report->page_size;
    chart_begin(out, class_of(axis), "Memory that had come, over time",
                "Areas stand on each other: their height is how much memory each kind had brought");
    chart_value_axis(out, &up, "memory", true);
    chart_time_axis(out, axis, time_label);
    for (int i = 0; i <= BARS; i++)
        low[i] = PLOT_BOTTOM;
    for (unsigned came = 0; came < REPORT_NEVER; came++) {
        if (report->came[came].sum == 0)
            continue;
        for (int i = 0; i <= BARS; i++) {
            bytes[i] +=
                count_within(&report->came[came], 0, axis_value(axis, PLOT_LEFT + i * width)) *
                (double)report->page_size;
            high[i] = axis_place(&up, bytes[i]);
        }
        draw_area(out, report, (enum report_came)came, low, high);
        for (int i = 0; i <= BARS; i++)
            low[i] = high[i];
    }
    fputs("</svg></div>\n", out);
}

// --- single faults ---

static double slowest_ns(const struct report *report)
{
    double slowest = 10 * TOOK_LEAST;
    for (unsigned i = 0; i < REPORT_WAITEDS; i++)
        slowest = (double)report->latency[i].max_ns > slowest ? (double)report->latency[i].max_ns
                                                              : slowest;
    return slowest;
}

static void draw_dot(FILE *out, const struct axis *axis, const struct axis *up,
                     const struct report_fault *fault)
{
    double at = (double)fault->at_us * 1e3;
    double took = (double)fault->took_ns > TOOK_LEAST ? (double)fault->took_ns : TOOK_LEAST;
    if (at <= axis->high)
        fprintf(out, "M%.0f,%.0fh0", axis_place(axis, at > axis->low ? at : axis->low),
                axis_place(up, took));
}

static void draw_dots(FILE *out, const struct report *report, const struct axis *axis)
{
    struct axis up = {.low = TOOK_LEAST, .logarithmic = true, .from = PLOT_BOTTOM, .to = PLOT_TOP};
    size_t step = report->log.count / DOTS_MOST + 1;
    up.high = pow(10, ceil(log10(slowest_ns(report))));
    chart_begin(
        out, class_of(axis), "Single faults: when, and how long they took",
        "Each dot is a fault; its height is how long it took, its colour what it waited for");
    chart_value_axis(out, &up, "time it took", false);
    chart_time_axis(out, axis, time_label);
    for (unsigned waited = 0; waited < REPORT_WAITEDS; waited++) {
        fprintf(out, "<path class=\"dot w-%s\" d=\"M0,-9h0", report_waiteds[waited].name);
        for (size_t i = 0; i < report->log.count; i += step) {
            if (report->log.fault[i].waited == waited)
                draw_dot(out, axis, &up, &report->log.fault[i]);
        }
        for (size_t i = 0; i < report->slowest.count; i++) {
            if (report->slowest.fault[i].waited == waited)
                draw_dot(out, axis, &up, &report->slowest.fault[i]);
        }
        fputs("\"/>\n", out);
    }
    fputs("</svg></div>\n", out);
}

// --- all ---

// What the colours of a chart are; only of kinds that there are.
static void write_keys(FILE *out, const struct report *report, bool cames)
{
    fputs("<ul class=\"keys\">", out);
    for (unsigned i = 0; cames && i < REPORT_NEVER; i++) {
        if (report->came[i].sum > 0)
            fprintf(out, "<li><span class=\"swatch s-%s\"></span>%s</li>", report_cames[i].name,
                    report_cames[i].title);
    }
    for (unsigned i = 0; !cames && i < REPORT_WAITEDS; i++) {
        if (report->latency[i].buckets.sum > 0)
            fprintf(out, "<li><span class=\"swatch w-%s\"></span>%s: %s</li>",
                    report_waiteds[i].name, report_waiteds[i].title, report_waiteds[i].about);
    }
    fputs("</ul>\n", out);
}

static void say_what_is_beyond(FILE *out, const struct report *report, const struct axis *axis)
{
    char count[REPORT_TEXT];
    char last[REPORT_TEXT];
    double beyond = count_by(report, of_all, INFINITY) - count_by(report, of_all, axis->high);
    if (beyond < 1)
        return;
    fprintf(out,
            "<p class=\"linear note\">%s faults and pages came later, the last one after %s. They "
            "are on the logarithmic axis.</p>\n",
            report_count((uint64_t)(beyond + 0.5), count),
            report_time(time_of(report, of_all, 1) / 1e3, last));
}

static void say_what_dots_there_are(FILE *out, const struct report *report)
{
    char first[REPORT_TEXT];
    size_t step = report->log.count / DOTS_MOST + 1;
    if (report->logged >= report->faults && step == 1)
        return;
    fprintf(out,
            "<p class=\"note\">Not every fault has a dot: one in %zu of the first %s has, and "
            "the slowest of all have.</p>\n",
            step, report_count(report->log.count, first));
}

void report_charts(FILE *out, const struct report *report)
{
    struct axis axes[2] = {time_axis(report, false), time_axis(report, true)};
    static void (*const draw[])(FILE *, const struct report *,
                                const struct axis *) = {draw_faults, draw_pages, draw_dots};
    static const char *const title[] = {"Faults over time", "Memory that had come",
                                        "Single faults: when, and how long"};
    for (unsigned i = 0; i < 3; i++) {
        fprintf(out, "<h3>%s</h3>\n", title[i]);
        if (i > 0)
            write_keys(out, report, i == 1);
        for (unsigned axis = 0; axis < 2; axis++)
            draw[i](out, report, &axes[axis]);
        if (i == 0)
            say_what_is_beyond(out, report, &axes[0]);
    }
    say_what_dots_there_are(out, report);
}
