// SPDX-License-Identifier: Apache-2.0
//
// The map of memory: a square for each page, or for as many pages as make the map no larger than
// any other. Drawn as one path for each colour and opacity; the script gets the counts of each
// square as letters and numbers, as they are in a record.
#include <inttypes.h>

#include "tools/verbs/report.h"

enum { WIDTH = 1024, DENSITIES = 3 };
static const double opacities[DENSITIES] = {0.45, 0.7, 1};

static unsigned columns_of(const struct report *report)
{
    return report->cells > 2048 ? 128 : report->cells > 256 ? 64 : 32;
}

static uint64_t pages_of(const struct report *report, size_t cell)
{
    uint64_t first = cell * report->cell_pages;
    uint64_t left = report->pages - first;
    return left < report->cell_pages ? left : report->cell_pages;
}

// What is to be seen of it: a page that failed, whatever else there is; else what brought most.
static enum report_came colour_of(const struct report_cell *cell)
{
    unsigned best = REPORT_NEVER;
    if (cell->pages[REPORT_FAILED] > 0)
        return REPORT_FAILED;
    for (unsigned i = 0; i < REPORT_FAILED; i++) {
        if (cell->pages[i] > 0 && (best == REPORT_NEVER || cell->pages[i] > cell->pages[best]))
            best = i;
    }
    return (enum report_came)best;
}

// By how much of it is there.
static unsigned density_of(const struct report *report, size_t cell)
{
    uint64_t pages = pages_of(report, cell);
    double there = (double)(pages - report->cell[cell].pages[REPORT_NEVER]) / (double)pages;
    bool plain = report->cell[cell].pages[REPORT_NEVER] == pages ||
                 colour_of(&report->cell[cell]) == REPORT_FAILED;
    return plain || there >= 0.5 ? 2 : there >= 0.1 ? 1 : 0;
}

static void draw_path(FILE *out, const struct report *report, enum report_came came,
                      unsigned density)
{
    unsigned columns = columns_of(report);
    unsigned size = WIDTH / columns;
    bool any = false;
    for (size_t cell = 0; cell < report->cells;) {
        size_t first = cell;
        size_t row_end = (cell / columns + 1) * columns;
        while (cell < row_end && cell < report->cells && colour_of(&report->cell[cell]) == came &&
               density_of(report, cell) == density)
            cell++;
        if (cell == first) {
            cell++;
            continue;
        }
        if (!any)
            fprintf(out, "<path class=\"k-%s\" fill-opacity=\"%g\" d=\"", report_cames[came].name,
                    opacities[density]);
        any = true;
        fprintf(out, "M%zu,%zuh%zuv%uh-%zuz", first % columns * size, first / columns * size,
                (cell - first) * size, size, (cell - first) * size);
    }
    if (any)
        fputs("\"/>\n", out);
}

static void draw_map(FILE *out, const struct report *report)
{
    unsigned columns = columns_of(report);
    unsigned size = WIDTH / columns;
    size_t rows = (report->cells + columns - 1) / columns;
    char share[REPORT_TEXT];
    char bytes[REPORT_TEXT];
    fprintf(out,
            "<div id=\"map\" tabindex=\"0\" role=\"application\" aria-label=\"Map of the memory. "
            "Arrow keys move through it.\" aria-describedby=\"under\">\n"
            "<svg viewBox=\"0 0 %d %zu\" role=\"img\" aria-label=\"Map of the memory, %s: "
            "%s of it never came\" shape-rendering=\"crispEdges\">\n",
            WIDTH, rows * size, report_bytes(report->pages * report->page_size, bytes),
            report_share((double)report->total[REPORT_NEVER], (double)report->pages, share));
    for (unsigned came = 0; came < REPORT_CAMES; came++) {
        for (unsigned density = 0; density < DENSITIES; density++)
            draw_path(out, report, (enum report_came)came, density);
    }
    fprintf(
        out,
        "<rect id=\"cursor\" width=\"%u\" height=\"%u\" hidden=\"\"/></svg></div>\n"
        "<p id=\"under\" class=\"js\" aria-live=\"polite\">Move through the map with the mouse, "
        "or with the arrow keys once it has the focus.</p>\n",
        size, size);
}

// With buttons for the script, which then shows one kind alone.
static void draw_legend(FILE *out, const struct report *report)
{
    char pages[REPORT_TEXT];
    char bytes[REPORT_TEXT];
    char share[REPORT_TEXT];
    fputs("<table class=\"legend\" id=\"kinds\"><caption class=\"hidden\">What brought the pages"
          "</caption><thead><tr><th scope=\"col\">kind</th><th scope=\"col\" class=\"n\">pages</th>"
          "<th scope=\"col\" class=\"n\">memory</th><th scope=\"col\" class=\"n\">share</th>"
          "<th scope=\"col\">meaning</th></tr></thead><tbody>\n",
          out);
    for (unsigned i = 0; i < REPORT_CAMES; i++) {
        const struct report_kind *kind = &report_cames[i];
        if (report->total[i] == 0)
            continue;
        fprintf(out,
                "<tr data-kind=\"%s\"><th scope=\"row\"><span class=\"swatch s-%s\"></span>"
                "<button type=\"button\" class=\"plain\" data-kind=\"%s\" aria-pressed=\"false\">%s"
                "</button></th><td class=\"n\" data-pages=\"%" PRIu64
                "\">%s</td><td class=\"n\">%s</td>"
                "<td class=\"n\">%s</td><td>%s</td></tr>\n",
                kind->name, kind->name, kind->name, kind->title, report->total[i],
                report_count(report->total[i], pages),
                report_bytes(report->total[i] * report->page_size, bytes),
                report_share((double)report->total[i], (double)report->pages, share), kind->about);
    }
    fputs("</tbody></table>\n", out);
}

static void give_cells(FILE *out, const struct report *report)
{
    fprintf(out,
            "<script type=\"application/json\" id=\"cells\">{\"columns\":%u,\"size\":%u,"
            "\"cellPages\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"pageSize\":%" PRIu64 ",\"cells\":\"",
            columns_of(report), WIDTH / columns_of(report), report->cell_pages, report->pages,
            report->page_size);
    for (size_t cell = 0; cell < report->cells; cell++) {
        if (cell > 0)
            fputc(' ', out);
        for (unsigned i = 0; i < REPORT_CAMES; i++) {
            uint32_t pages = report->cell[cell].pages[i];
            if (pages > 0)
                fputc(report_cames[i].letter, out);
            if (pages > 1)
                fprintf(out, "%" PRIu32, pages);
        }
    }
    fputs("\"}</script>\n", out);
}

void report_map(FILE *out, const struct report *report)
{
    char bytes[REPORT_TEXT];
    char pages[REPORT_TEXT];
    report_bytes(report->cell_pages * report->page_size, bytes);
    if (report->cell_pages == 1)
        fprintf(out, "<p>Each square is a page of %s, in the order of the memory file.", bytes);
    else
        fprintf(out,
                "<p>Each square is %s of memory (%s pages), in the order of the memory file, with "
                "the colour of what brought most of it. It is paler where less than a half, or a "
                "tenth, of it has come.",
                bytes, report_count(report->cell_pages, pages));
    fputs(" <span class=\"js\">Choose a kind to see it alone.</span></p>\n", out);
    draw_legend(out, report);
    draw_map(out, report);
    give_cells(out, report);
}
