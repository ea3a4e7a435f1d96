// SPDX-License-Identifier: Apache-2.0
//
// The page that `faultline report` makes of a record (docs/report.md): fetched from a server by
// report_fetch.c, read from JSON by report_record.c, and written as HTML by report_page.c, with
// report_charts.c, report_map.c and report_tables.c. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_REPORT_H
#define FAULTLINE_TOOLS_VERBS_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { REPORT_RECORD = 1 }; // the version of a record

// In the order in which they are drawn, from below.
enum report_came {
    REPORT_DEMAND,
    REPORT_NEIGHBOUR,
    REPORT_REPLAY,
    REPORT_FILL,
    REPORT_ZERO,
    REPORT_TEMPLATE,
    REPORT_OTHER,
    REPORT_FAILED,
    REPORT_NEVER,
    REPORT_CAMES
};
enum report_waited { REPORT_CACHED, REPORT_READ, REPORT_REMOVE, REPORT_MEMORY, REPORT_WAITEDS };

// Name in a record, letter of its map, and what people read.
struct report_kind {
    const char *name;
    char letter;
    const char *title;
    const char *about;
};
extern const struct report_kind report_cames[REPORT_CAMES];
extern const struct report_kind report_waiteds[REPORT_WAITEDS]; // no letter

struct report_bucket {
    double from, to; // nanoseconds
    uint64_t count;
};
struct report_buckets {
    struct report_bucket *bucket;
    size_t count;
    uint64_t sum; // of all counts
};
struct report_latency {
    struct report_buckets buckets;
    uint64_t sum_ns;
    uint64_t max_ns;
};
struct report_fault {
    uint64_t at_us;
    uint64_t page;
    uint64_t took_ns;
    enum report_waited waited;
};
struct report_faults {
    struct report_fault *fault;
    size_t count;
};

enum { REPORT_CELLS = 128 * 96 };

// A piece of memory of which the map shows one square.
struct report_cell {
    uint32_t pages[REPORT_CAMES];
};

struct report {
    const char *version, *host, *image, *since; // of the record, which must outlive this
    uint64_t vm, pid, page_size, pages, begun, age_us;
    bool running;
    uint64_t messages, installed, zeroed, poisoned, removed;
    uint64_t faults, logged, last_us, quiet_us;
    bool is_quiet;
    struct report_buckets over_time;
    struct report_latency latency[REPORT_WAITEDS];
    struct report_buckets came[REPORT_NEVER];
    struct report_faults slowest, log;
    uint64_t total[REPORT_CAMES]; // pages
    uint64_t cell_pages;          // in each cell but the last one
    size_t cells;
    struct report_cell *cell;
};

// --- report_record.c ---

// Reads a record. Returns NULL, or a sentence's end that says what is wrong with it. Free it in any
// case.
const char *report_read(const json_t *record, struct report *ret_report);
void report_free(struct report *report);
// What brought the page, or the pages around it, most: of the cell that has it.
const struct report_cell *report_cell_of(const struct report *report, uint64_t page);

// --- report_fetch.c ---

// Gets the record of a VM from the server: `which` is its number, the pid of its process, or its
// image, and then it is the last VM of that image. The caller owns the record. Returns EXIT_DONE,
// or EXIT_FAILED after a sentence.
int report_fetch(const char *control, const char *which, json_t **ret_record);

// --- report_page.c ---

// Writes the page. Errors of `out` are the caller's to look for.
void report_write(FILE *out, const struct report *report);

// --- what makes the parts of the page ---

void report_charts(FILE *out, const struct report *report); // report_charts.c
void report_map(FILE *out, const struct report *report);    // report_map.c
void report_tables(FILE *out, const struct report *report); // report_tables.c

// Of the inline style and script (tools/report/), made by tools/report/embed.cmake.
extern const char report_css[];
extern const char report_js[];

// --- report_text.c ---

// Text as HTML shows it, whatever is in it.
void report_escape(FILE *out, const char *text);
// Numbers for people, in buf, which they return.
enum { REPORT_TEXT = 48 };
char *report_count(uint64_t count, char buf[REPORT_TEXT]);          // 12,345
char *report_time(double us, char buf[REPORT_TEXT]);                // 12.3 ms
char *report_bytes(uint64_t bytes, char buf[REPORT_TEXT]);          // 12.3 MiB
char *report_share(double part, double all, char buf[REPORT_TEXT]); // 12 %

// All that waited for anything, or for one thing: nanoseconds below which this share of them took.
double report_quantile(const struct report *report, int waited, double share);
enum { REPORT_ALL = -1 };

#endif
