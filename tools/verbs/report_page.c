// SPDX-License-Identifier: Apache-2.0
//
// The page as a whole: one file, which loads nothing. Its numbers, charts and tables are there
// without its script; that adds the cursor of the map and the buttons.
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tools/verbs/report.h"

static void write_head(FILE *out, const struct report *report)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<link rel=\"icon\" href=\"data:,\">\n<title>Restore of ",
          out);
    report_escape(out, report->image);
    fprintf(out, ", VM %" PRIu64 "</title>\n<style>\n", report->vm);
    fputs(report_css, out);
    fputs("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">To the content</a>\n"
          "<a class=\"skip\" href=\"#map\">To the map of the memory</a>\n"
          "<a class=\"skip\" href=\"#late\">To the slowest faults</a>\n",
          out);
}

static void write_title(FILE *out)
{
    fputs("<header><div><p class=\"brand\">Faultline</p><h1>A restore</h1></div>"
          "<p class=\"js buttons\"><button type=\"button\" id=\"axis\" aria-pressed=\"false\">"
          "Logarithmic time</button> <button type=\"button\" id=\"theme\" aria-pressed=\"false\">"
          "Dark</button></p></header>\n",
          out);
}

static void write_time(FILE *out, uint64_t seconds)
{
    char text[64] = "";
    time_t time = (time_t)seconds;
    struct tm tm;
    if (seconds < UINT32_MAX && gmtime_r(&time, &tm))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm);
    fputs(text, out);
}

// A fact of the list: its name, and text from outside or our own.
static void write_fact(FILE *out, const char *name, const char *text)
{
    fprintf(out, "<div><dt>%s</dt><dd><bdi>", name);
    report_escape(out, text);
    fputs("</bdi></dd></div>\n", out);
}

static void write_number(FILE *out, const char *name, uint64_t number)
{
    char text[REPORT_TEXT];
    snprintf(text, sizeof(text), "%" PRIu64, number);
    write_fact(out, name, text);
}

static void write_facts(FILE *out, const struct report *report)
{
    char text[REPORT_TEXT];
    fputs("<dl class=\"facts\">\n", out);
    write_fact(out, "image", report->image);
    write_number(out, "VM", report->vm);
    write_number(out, "process", report->pid);
    write_fact(out, "host", report->host);
    write_fact(out, "faultline", report->version);
    fputs("<div><dt>begun</dt><dd>", out);
    write_time(out, report->begun);
    fputs("</dd></div>\n", out);
    write_fact(out, report->running ? "runs for" : "ran for",
               report_time((double)report->age_us, text));
    write_fact(out, "memory", report_bytes(report->pages * report->page_size, text));
    write_fact(out, "page size", report_bytes(report->page_size, text));
    fputs("</dl>\n", out);
}

static void write_card(FILE *out, const char *id, const char *name, const char *value,
                       const char *note)
{
    fprintf(out,
            "<li id=\"%s\"><span class=\"name\">%s</span> <strong>%s</strong> "
            "<span class=\"of\">%s</span></li>\n",
            id, name, value, note);
}

static void write_quiet(FILE *out, const struct report *report)
{
    char text[REPORT_TEXT];
    if (report->faults == 0)
        write_card(out, "quiet", "quiet", "at once", "no fault came");
    else if (report->is_quiet)
        write_card(out, "quiet", "quiet after", report_time((double)report->quiet_us, text),
                   "then no fault for a second");
    else
        write_card(out, "quiet", "quiet", report->running ? "not yet" : "never",
                   report->running ? "a fault came within the last second"
                                   : "it ended within a second of its last fault");
}

static void write_cards(FILE *out, const struct report *report)
{
    char text[REPORT_TEXT];
    char note[REPORT_TEXT + 32];
    uint64_t there = report->pages - report->total[REPORT_NEVER] - report->total[REPORT_FAILED];
    fputs("<ul class=\"cards\">\n", out);
    write_quiet(out, report);
    snprintf(note, sizeof(note), "last one after %s", report_time((double)report->last_us, text));
    write_card(out, "faults", "faults", report_count(report->faults, text),
               report->faults > 0 ? note : "none");
    if (report->faults > 0) {
        snprintf(note, sizeof(note), "the longest took %s",
                 report_time(report_quantile(report, REPORT_ALL, 1) / 1e3, text));
        write_card(out, "p99", "99 % took at most",
                   report_time(report_quantile(report, REPORT_ALL, 0.99) / 1e3, text), note);
    }
    snprintf(note, sizeof(note), "%s of the VM",
             report_share((double)there, (double)report->pages, text));
    write_card(out, "there", "memory that came", report_bytes(there * report->page_size, text),
               note);
    snprintf(note, sizeof(note), "%s of what came",
             report_share((double)report->total[REPORT_REPLAY], (double)there, text));
    write_card(out, "replayed", "by replay",
               report_bytes(report->total[REPORT_REPLAY] * report->page_size, text), note);
    if (report->total[REPORT_FAILED] > 0)
        write_card(out, "failed", "could not be had",
                   report_count(report->total[REPORT_FAILED], text), "pages");
    fputs("</ul>\n", out);
}

// What a reader would take these numbers for if nothing were said.
static void write_notes(FILE *out, const struct report *report)
{
    char text[REPORT_TEXT];
    if (strcmp(report->since, "attach") != 0)
        fprintf(
            out,
            "<p class=\"note\" id=\"since\">This history begins with a take-over: another "
            "engine served the VM before. What was there by then is counted as <em>other</em>, "
            "without a time. Of %s messages in the VM's whole life it has those since then.</p>\n",
            report_count(report->messages, text));
    if (report->running)
        fputs("<p class=\"note\">The VM ran on when this was taken.</p>\n", out);
}

void report_write(FILE *out, const struct report *report)
{
    write_head(out, report);
    write_title(out);
    fputs("<main id=\"main\" tabindex=\"-1\">\n", out);
    write_facts(out, report);
    write_cards(out, report);
    write_notes(out, report);
    fputs("<h2>Over time</h2>\n", out);
    if (report->faults > 0 || report->total[REPORT_NEVER] < report->pages)
        report_charts(out, report);
    else
        fputs("<p id=\"nothing\">Nothing has happened: no fault came, and no page.</p>\n", out);
    fputs("<h2 id=\"memory\">What brought each page</h2>\n", out);
    report_map(out, report);
    if (report->faults > 0)
        report_tables(out, report);
    fputs("</main>\n<footer>Made by <code>faultline report</code>. Its words are explained in "
          "docs/report.md.</footer>\n<script>\n",
          out);
    fputs(report_js, out);
    fputs("</script>\n</body>\n</html>\n", out);
}
