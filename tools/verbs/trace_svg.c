// SPDX-License-Identifier: Apache-2.0
//
// Draws a trace: time to the right, guest memory upwards. Pages are gathered in cells, so that a
// hundred thousand of them are as quick to draw as ten. The colour of a cell shows in how many of
// the recordings its pages are; its opacity shows how much of its memory was touched then.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tools/cli/cli.h"
#include "tools/verbs/trace_report.h"

enum {
    WIDTH = 1150,
    HEIGHT = 660,
    LEFT = 90,
    TOP = 70,
    PLOT_WIDTH = 840,
    PLOT_HEIGHT = 500,
    LEGEND = LEFT + PLOT_WIDTH + 30,
    CELL_WIDTH = 4,
    CELL_HEIGHT = 5,
    COLUMNS = PLOT_WIDTH / CELL_WIDTH,
    ROWS = PLOT_HEIGHT / CELL_HEIGHT,
    COLOURS = 5,
    DENSITIES = 3,
    TICKS = 8,
};

static const char *const colours[COLOURS] = {"#f2b950", "#ee7b3c", "#cf4258", "#85366d", "#2b2450"};
static const char *const opacities[DENSITIES] = {"0.5", "0.75", "1"};
static const char *const density_names[DENSITIES] = {"less than a tenth", "less than a half",
                                                     "half or more"};

struct cell {
    uint64_t pages;
    uint64_t seen; // the sum, over its pages, of the recordings that have the page
};

struct picture {
    FILE *out;
    const struct trace_report *report;
    struct cell *cells;
    double row_pages; // pages of memory in a row
    double span_ms;   // of the time axis
};

// Returns 1, 2 or 5 times a power of ten, so that about TICKS such steps fill the axis.
static double nice_step(double span)
{
    double step = 1;
    while (step * TICKS * 10 <= span)
        step *= 10;
    if (step * TICKS >= span)
        return step;
    if (step * 2 * TICKS >= span)
        return step * 2;
    return step * 5 * TICKS >= span ? step * 5 : step * 10;
}

// Does the same for memory, in powers of two.
static double nice_step_pages(double span)
{
    double step = 1;
    while (step * TICKS < span)
        step *= 2;
    return step;
}

static struct cell *cell_of(const struct picture *picture, const struct fl_trace_entry *entry)
{
    unsigned column = (unsigned)((double)entry->ms / picture->span_ms * COLUMNS);
    unsigned row = (unsigned)((double)entry->page / picture->row_pages);
    column = column < COLUMNS ? column : COLUMNS - 1;
    row = row < ROWS ? row : ROWS - 1;
    return &picture->cells[row * COLUMNS + column];
}

static void fill_cells(const struct picture *picture, const struct fl_trace *trace)
{
    const struct fl_trace_entry *entries = fl_trace_entries(trace);
    for (uint64_t i = 0; i < fl_trace_count(trace); i++) {
        struct cell *cell = cell_of(picture, &entries[i]);
        cell->pages++;
        cell->seen += entries[i].seen;
    }
}

static int colour_of(const struct picture *picture, const struct cell *cell)
{
    double share = (double)cell->seen / (double)cell->pages / (double)picture->report->runs;
    int colour = (int)(share * COLOURS - 1e-9); // an average of all recordings is the last one
    return colour < COLOURS ? colour : COLOURS - 1;
}

static int density_of(const struct picture *picture, const struct cell *cell)
{
    double share = (double)cell->pages / picture->row_pages;
    return share < 0.1 ? 0 : share < 0.5 ? 1 : 2;
}

// Draws all cells of one colour and opacity; neighbours in a row are one rectangle.
static void draw_kind(const struct picture *picture, int colour, int density)
{
    fprintf(picture->out, "<path fill=\"%s\" fill-opacity=\"%s\" d=\"", colours[colour],
            opacities[density]);
    for (int row = 0; row < ROWS; row++) {
        int length = 0;
        for (int column = 0; column <= COLUMNS; column++) {
            const struct cell *cell = &picture->cells[row * COLUMNS + column];
            if (column < COLUMNS && cell->pages > 0 && colour_of(picture, cell) == colour &&
                density_of(picture, cell) == density) {
                length++;
                continue;
            }
            if (length > 0)
                fprintf(picture->out, "M%d,%dh%dv%dh-%dz", LEFT + (column - length) * CELL_WIDTH,
                        TOP + PLOT_HEIGHT - (row + 1) * CELL_HEIGHT, length * CELL_WIDTH,
                        CELL_HEIGHT, length * CELL_WIDTH);
            length = 0;
        }
    }
    fputs("\"/>\n", picture->out);
}

static void draw_cells(const struct picture *picture)
{
    fputs("<g shape-rendering=\"crispEdges\">\n", picture->out);
    for (int colour = 0; colour < COLOURS; colour++) {
        for (int density = 0; density < DENSITIES; density++)
            draw_kind(picture, colour, density);
    }
    fputs("</g>\n", picture->out);
}

static void draw_text(FILE *out, double x, double y, const char *anchor, const char *what)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, what);
}

static void draw_line(FILE *out, double x1, double y1, double x2, double y2)
{
    fprintf(out, "<path stroke=\"#d8d8d8\" d=\"M%.1f,%.1fL%.1f,%.1f\"/>\n", x1, y1, x2, y2);
}

static void draw_time_axis(const struct picture *picture)
{
    bool seconds = picture->span_ms >= 5000;
    double step = nice_step(picture->span_ms);
    for (unsigned i = 0; i * step <= picture->span_ms; i++) {
        char label[32];
        double ms = i * step;
        double x = LEFT + ms / picture->span_ms * PLOT_WIDTH;
        snprintf(label, sizeof(label), "%g", seconds ? ms / 1000 : ms);
        draw_line(picture->out, x, TOP, x, TOP + PLOT_HEIGHT + 6);
        draw_text(picture->out, x, TOP + PLOT_HEIGHT + 22, "middle", label);
    }
    draw_text(picture->out, LEFT + PLOT_WIDTH / 2.0, TOP + PLOT_HEIGHT + 48, "middle",
              seconds ? "time after attach (s)" : "time after attach (ms)");
}

static void draw_memory_axis(const struct picture *picture)
{
    double span = picture->row_pages * ROWS;
    double step = nice_step_pages(span);
    // Takes the unit of the step, so that labels are whole numbers.
    double unit = step >= 1 << 18 ? 1 << 18 : step >= 1 << 8 ? 1 << 8 : 0.25;
    for (unsigned i = 0; i * step <= span; i++) {
        char label[32];
        double page = i * step;
        double y = TOP + PLOT_HEIGHT - page / span * PLOT_HEIGHT;
        snprintf(label, sizeof(label), "%g", page / unit);
        draw_line(picture->out, LEFT - 6, y, LEFT + PLOT_WIDTH, y);
        draw_text(picture->out, LEFT - 10, y + 4, "end", label);
    }
    fprintf(picture->out,
            "<text transform=\"translate(26,%d) rotate(-90)\" text-anchor=\"middle\">"
            "guest memory offset (%s)</text>\n",
            TOP + PLOT_HEIGHT / 2,
            unit > 256 ? "GiB"
            : unit > 1 ? "MiB"
                       : "KiB");
}

static void draw_swatch(FILE *out, int y, const char *colour, const char *opacity, const char *what)
{
    fprintf(out,
            "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"14\" fill=\"%s\" "
            "fill-opacity=\"%s\"/>\n",
            LEGEND, y - 12, colour, opacity);
    draw_text(out, LEGEND + 22, y, "start", what);
}

static void draw_seen(const struct picture *picture, int *y)
{
    char what[64];
    if (picture->report->runs == 1) {
        draw_text(picture->out, LEGEND, *y, "start", "of one recording");
        return;
    }
    snprintf(what, sizeof(what), "in how many of the %" PRIu32, picture->report->runs);
    draw_text(picture->out, LEGEND, *y, "start", what);
    draw_text(picture->out, LEGEND, *y += 18, "start", "recordings");
    for (int colour = COLOURS - 1; colour >= 0; colour--) {
        snprintf(what, sizeof(what), "%d to %d %%", colour * 100 / COLOURS,
                 (colour + 1) * 100 / COLOURS);
        draw_swatch(picture->out, *y += 22, colours[colour], "1", what);
    }
}

static void draw_legend(const struct picture *picture)
{
    int y = TOP + 12;
    char what[64];
    draw_seen(picture, &y);
    draw_text(picture->out, LEGEND, y += 40, "start", "share touched of the");
    snprintf(what, sizeof(what), "cell's %.*f pages", picture->row_pages < 10 ? 1 : 0,
             picture->row_pages);
    draw_text(picture->out, LEGEND, y += 18, "start", what);
    for (int density = DENSITIES - 1; density >= 0; density--)
        draw_swatch(picture->out, y += 22, colours[COLOURS - 1], opacities[density],
                    density_names[density]);
}

static void draw_title(const struct picture *picture, const char *name)
{
    const struct trace_report *report = picture->report;
    char bytes[32];
    fprintf(picture->out,
            "<text x=\"%d\" y=\"28\" font-size=\"18\" font-weight=\"bold\">First touches of %s"
            "</text>\n",
            LEFT, name);
    cli_format_bytes(report->pages * FL_PAGE_SIZE, bytes, sizeof(bytes));
    fprintf(picture->out,
            "<text x=\"%d\" y=\"50\">%" PRIu64 " page%s (%s), %.1f %% of the image; half of them "
            "in the first %" PRIu32 " ms</text>\n",
            LEFT, report->pages, cli_s(report->pages), bytes,
            100.0 * (double)report->pages / (double)report->image_pages, report->half_ms);
}

static void draw_picture(const struct picture *picture, const char *name)
{
    fprintf(picture->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_title(picture, name);
    draw_time_axis(picture);
    draw_memory_axis(picture);
    draw_cells(picture);
    fprintf(picture->out,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n",
            LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT);
    draw_legend(picture);
    fputs("</svg>\n", picture->out);
}

int trace_svg_write(FILE *out, const char *name, const struct trace_report *report,
                    const struct fl_trace *trace)
{
    struct picture picture = {
        .out = out,
        .report = report,
        .row_pages = (double)report->image_pages / ROWS,
        .span_ms = (double)report->last_ms + 1,
        .cells = calloc((size_t)ROWS * COLUMNS + 1, sizeof(*picture.cells)),
    };
    if (!picture.cells)
        return -ENOMEM;
    fill_cells(&picture, trace);
    draw_picture(&picture, name);
    free(picture.cells);
    return 0;
}
