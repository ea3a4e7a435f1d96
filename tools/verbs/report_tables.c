// SPDX-License-Identifier: Apache-2.0
//
// How long faults took: a histogram, a table of it, and the list of the slowest.
#include <inttypes.h>
#include <math.h>

#include "tools/verbs/report.h"
#include "tools/verbs/report_axis.h"

enum { BARS_MOST = 160, BARS_AN_OCTAVE = 4, AT_ONCE = 16 };

// --- the histogram ---

struct bars {
    double first; // the octave times BARS_AN_OCTAVE of the first bar
    unsigned count;
    uint64_t faults[BARS_MOST][REPORT_WAITEDS];
    struct axis across, up;
};

// A bar has whole buckets of the record: four of the sixteen of a power of two.
static double bar_of(double ns)
{
    double octave = floor(log2(ns) + 1e-9);
    return octave * BARS_AN_OCTAVE + floor((ns / exp2(octave) - 1) * BARS_AN_OCTAVE + 1e-9);
}

static double bar_from(const struct bars *bars, unsigned bar)
{
    double at = bars->first + bar;
    double octave = floor(at / BARS_AN_OCTAVE);
    return exp2(octave) * (1 + (at - octave * BARS_AN_OCTAVE) / BARS_AN_OCTAVE);
}

static void find_ends(const struct report *report, double *ret_low, double *ret_high)
{
    *ret_low = INFINITY;
    *ret_high = 0;
    for (unsigned i = 0; i < REPORT_WAITEDS; i++) {
        const struct report_buckets *buckets = &report->latency[i].buckets;
        for (size_t at = 0; at < buckets->count; at++) {
            double from = buckets->bucket[at].from < 512 ? 512 : buckets->bucket[at].from;
            *ret_low = from < *ret_low ? from : *ret_low;
            *ret_high = from > *ret_high ? from : *ret_high;
        }
    }
}

static void fill_bars(const struct report *report, struct bars *bars)
{
    double low = 0;
    double high = 0;
    find_ends(report, &low, &high);
    bars->first = floor(bar_of(low) / BARS_AN_OCTAVE) * BARS_AN_OCTAVE;
    double last = bar_of(high) - bars->first + 1;
    bars->count = last < BARS_MOST ? (unsigned)last : BARS_MOST;
    bars->count += (BARS_AN_OCTAVE - bars->count % BARS_AN_OCTAVE) % BARS_AN_OCTAVE;
    for (unsigned i = 0; i < REPORT_WAITEDS; i++) {
        const struct report_buckets *buckets = &report->latency[i].buckets;
        for (size_t at = 0; at < buckets->count; at++) {
            double from = buckets->bucket[at].from < 512 ? 512 : buckets->bucket[at].from;
            double bar = bar_of(from) - bars->first;
            bar = bar < 0 ? 0 : bar > bars->count - 1 ? bars->count - 1 : bar;
            bars->faults[(unsigned)bar][i] += buckets->bucket[at].count;
        }
    }
}

static void make_axes(struct bars *bars)
{
    uint64_t most = 1;
    for (unsigned bar = 0; bar < bars->count; bar++) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < REPORT_WAITEDS; i++)
            sum += bars->faults[bar][i];
        most = sum > most ? sum : most;
    }
    bars->across = (struct axis){.low = pow(10, floor(log10(bar_from(bars, 0)) + 1e-9)),
                                 .high = pow(10, ceil(log10(bar_from(bars, bars->count)) - 1e-9)),
                                 .logarithmic = true,
                                 .from = PLOT_LEFT,
                                 .to = PLOT_RIGHT};
    bars->up = (struct axis){.high = (double)most, .from = PLOT_BOTTOM, .to = PLOT_TOP};
}

// What waited for one thing stands on what waited for the one before.
static void draw_bar(FILE *out, const struct bars *bars, unsigned bar)
{
    char low[REPORT_TEXT];
    char high[REPORT_TEXT];
    char count[REPORT_TEXT];
    double left = axis_place(&bars->across, bar_from(bars, bar));
    double right = axis_place(&bars->across, bar_from(bars, bar + 1));
    double y = PLOT_BOTTOM;
    for (unsigned i = 0; i < REPORT_WAITEDS; i++) {
        if (bars->faults[bar][i] == 0)
            continue;
        double height = PLOT_BOTTOM - axis_place(&bars->up, (double)bars->faults[bar][i]);
        height = height < 2 ? 2 : height; // one that is rare can be seen
        fprintf(out,
                "<path class=\"w-%s\" data-faults=\"%" PRIu64
                "\" d=\"M%.1f,%.1fh%.1fv-%.1fh-%.1fz\"><title>%s faults took %s to %s: %s"
                "</title></path>\n",
                report_waiteds[i].name, bars->faults[bar][i], left, y, right - left - 1, height,
                right - left - 1, report_count(bars->faults[bar][i], count),
                report_time(bar_from(bars, bar) / 1e3, low),
                report_time(bar_from(bars, bar + 1) / 1e3, high), report_waiteds[i].title);
        y -= height;
    }
}

static void draw_quantile(FILE *out, const struct report *report, const struct bars *bars,
                          double share, const char *name, int y)
{
    double x = axis_place(&bars->across, report_quantile(report, REPORT_ALL, share));
    bool left = x > PLOT_RIGHT - 40;
    fprintf(out, "<path class=\"mark\" d=\"M%.1f,%dV%d\"/>", x, PLOT_TOP, PLOT_BOTTOM);
    fputs("<g class=\"halo\">", out);
    chart_text(out, x + (left ? -4 : 4), y, left ? "end" : "start", name);
    fputs("</g>", out);
}

static void draw_histogram(FILE *out, const struct report *report)
{
    static struct bars bars;
    bars = (struct bars){.count = 0};
    fill_bars(report, &bars);
    make_axes(&bars);
    chart_begin(
        out, "histogram", "How long faults took",
        "Each bar is as high as the number of faults that took so long; its colours are what "
        "they waited for");
    chart_value_axis(out, &bars.up, "faults", false);
    chart_time_axis(out, &bars.across, "time a fault took (logarithmic)");
    for (unsigned bar = 0; bar < bars.count; bar++)
        draw_bar(out, &bars, bar);
    draw_quantile(out, report, &bars, 0.5, "p50", PLOT_TOP + 8);
    draw_quantile(out, report, &bars, 0.9, "p90", PLOT_TOP + 20);
    draw_quantile(out, report, &bars, 0.99, "p99", PLOT_TOP + 32);
    fputs("</svg></div>\n", out);
}

// --- the table of it ---

static void write_row(FILE *out, const struct report *report, int waited)
{
    char text[REPORT_TEXT];
    uint64_t count = 0;
    double sum = 0;
    double max = 0;
    for (int i = 0; i < REPORT_WAITEDS; i++) {
        const struct report_latency *latency = &report->latency[i];
        if (waited != REPORT_ALL && waited != i)
            continue;
        count += latency->buckets.sum;
        sum += (double)latency->sum_ns;
        max = (double)latency->max_ns > max ? (double)latency->max_ns : max;
    }
    if (count == 0)
        return;
    if (waited == REPORT_ALL)
        fputs("<tr class=\"all\"><th scope=\"row\">all</th>", out);
    else
        fprintf(out, "<tr><th scope=\"row\"><span class=\"swatch w-%s\"></span>%s</th>",
                report_waiteds[waited].name, report_waiteds[waited].title);
    fprintf(out, "<td class=\"n\" data-faults=\"%" PRIu64 "\">%s</td>", count,
            report_count(count, text));
    fprintf(out, "<td class=\"n\">%s</td>", report_time(sum / (double)count / 1e3, text));
    static const double shares[] = {0.5, 0.9, 0.99};
    for (unsigned i = 0; i < 3; i++) {
        double ns = report_quantile(report, waited, shares[i]);
        fprintf(out, "<td class=\"n\">%s</td>", report_time(ns / 1e3, text));
    }
    fprintf(out, "<td class=\"n\">%s</td><td>%s</td></tr>\n", report_time(max / 1e3, text),
            waited == REPORT_ALL ? "" : report_waiteds[waited].about);
}

static void write_latency(FILE *out, const struct report *report)
{
    fputs("<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"Table of how long faults "
          "took\"><table id=\"latency\"><thead><tr><th scope=\"col\">waited for</th>"
          "<th scope=\"col\" class=\"n\">faults</th><th scope=\"col\" class=\"n\">mean</th>"
          "<th scope=\"col\" class=\"n\">p50</th><th scope=\"col\" class=\"n\">p90</th>"
          "<th scope=\"col\" class=\"n\">p99</th><th scope=\"col\" class=\"n\">longest</th>"
          "<th scope=\"col\">meaning</th></tr></thead><tbody>\n",
          out);
    for (int i = 0; i < REPORT_WAITEDS; i++)
        write_row(out, report, i);
    write_row(out, report, REPORT_ALL);
    fputs("</tbody></table></div>\n", out);
}

// --- the slowest ---

static const char *came_of(const struct report *report, uint64_t page)
{
    const struct report_cell *cell = report_cell_of(report, page);
    for (unsigned i = 0; cell && i < REPORT_CAMES; i++) {
        if (report->cell_pages == 1 && cell->pages[i] > 0)
            return report_cames[i].title;
    }
    return NULL;
}

static void write_slow(FILE *out, const struct report *report, const struct report_fault *fault)
{
    char text[REPORT_TEXT];
    const char *came = came_of(report, fault->page);
    fprintf(out, "<tr><td class=\"n\">%s</td>", report_time((double)fault->took_ns / 1e3, text));
    fprintf(out, "<td class=\"n\">%s</td>", report_time((double)fault->at_us, text));
    fprintf(out, "<td class=\"n\"><a href=\"#map\" data-page=\"%" PRIu64 "\">%s</a></td>",
            fault->page, report_count(fault->page, text));
    fprintf(out, "<td class=\"n\">0x%" PRIx64 "</td>", fault->page * report->page_size);
    fprintf(out, "<td><span class=\"swatch w-%s\"></span>%s</td>%s%s%s</tr>\n",
            report_waiteds[fault->waited].name, report_waiteds[fault->waited].title,
            report->cell_pages == 1 ? "<td>" : "", came ? came : "",
            report->cell_pages == 1 ? "</td>" : "");
}

static void write_some(FILE *out, const struct report *report, size_t first, size_t end)
{
    fprintf(out,
            "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"Table of the slowest "
            "faults\"><table class=\"slowest\"><thead><tr><th scope=\"col\" class=\"n\">took</th>"
            "<th scope=\"col\" class=\"n\">after</th><th scope=\"col\" class=\"n\">page</th>"
            "<th scope=\"col\" class=\"n\">offset</th><th scope=\"col\">waited for</th>%s"
            "</tr></thead><tbody>\n",
            report->cell_pages == 1 ? "<th scope=\"col\">came by</th>" : "");
    for (size_t i = first; i < end; i++)
        write_slow(out, report, &report->slowest.fault[i]);
    fputs("</tbody></table></div>\n", out);
}

static void write_slowest(FILE *out, const struct report *report)
{
    size_t all = report->slowest.count;
    size_t some = all > AT_ONCE ? AT_ONCE : all;
    if (all < report->faults)
        fprintf(out, "<p>The %zu slowest of all faults.", all);
    else
        fputs("<p>All faults, the slowest first.", out);
    fputs(" The time is when they were resolved. A page leads to its place on the map; the offset "
          "is that in the memory file.</p>\n",
          out);
    write_some(out, report, 0, some);
    if (some == all)
        return;
    fprintf(out, "<details><summary>The next %zu</summary>\n", all - some);
    write_some(out, report, some, all);
    fputs("</details>\n", out);
}

void report_tables(FILE *out, const struct report *report)
{
    fputs("<h2 id=\"took\">How long faults took</h2>\n", out);
    draw_histogram(out, report);
    write_latency(out, report);
    fputs("<h2 id=\"late\">What was late</h2>\n", out);
    write_slowest(out, report);
}
