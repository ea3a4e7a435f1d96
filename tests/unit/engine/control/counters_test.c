// SPDX-License-Identifier: Apache-2.0
//
// The table of counters: names are unique and follow the rules, and values come from their fields.
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/control/counters.h"
#include "engine/control/stats.h"

TestSuite(counters, .timeout = 20);

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static bool is_plain(const char *name, const char *also)
{
    for (; *name; name++) {
        if (!islower((unsigned char)*name) && *name != '_' && !strchr(also, *name))
            return false;
    }
    return true;
}

Test(counters, names_follow_the_rules)
{
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        const struct fl_counter_row *row = &fl_counter_rows[i];
        cr_assert(row->metric || row->json, "row %zu (%s) is shown nowhere", i, row->lives);
        cr_assert(ends_with(row->help, "."), "%s: its help is no sentence", row->lives);
        if (row->metric) {
            cr_assert(is_plain(row->metric, ""), "%s", row->metric);
            cr_assert_eq(ends_with(row->metric, "_total"), row->kind == FL_KIND_COUNTER, "%s",
                         row->metric);
        }
        if (row->json) {
            const char *dot = strchr(row->json, '.');
            cr_assert(is_plain(row->json, "."), "%s", row->json);
            cr_assert(!dot || !strchr(dot + 1, '.'), "%s has more than two parts", row->json);
        }
    }
}

Test(counters, no_name_stands_twice)
{
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        const struct fl_counter_row *a = &fl_counter_rows[i];
        for (size_t j = 0; j < i; j++) {
            const struct fl_counter_row *b = &fl_counter_rows[j];
            cr_assert(!a->metric || !b->metric || strcmp(a->metric, b->metric) != 0, "%s",
                      a->metric);
            cr_assert(!a->json || !b->json || strcmp(a->json, b->json) != 0, "%s", a->json);
            cr_assert_neq(a->offset, b->offset, "%s and %s", a->lives, b->lives);
        }
    }
}

// Each row reads its own field, as wide as it is: all bytes before and behind it are set.
Test(counters, values_come_from_their_fields)
{
    struct fl_stats *stats = malloc(sizeof(*stats));
    cr_assert(stats);
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        const struct fl_counter_row *row = &fl_counter_rows[i];
        char *field = (char *)stats + row->offset;
        uint64_t expected = 1;
        memset((void *)stats, 0xff, sizeof(*stats));
        switch (row->shape) {
        case FL_SHAPE_BOOL:
            *(bool *)(void *)field = true;
            break;
        case FL_SHAPE_UINT:
            *(unsigned *)(void *)field = (unsigned)(expected = 0x80000001U);
            break;
        case FL_SHAPE_U64:
        case FL_SHAPE_NS:
            *(uint64_t *)(void *)field = expected = 0x8000000100000002ULL;
            break;
        }
        cr_assert_eq(fl_counter_row_value(row, stats), expected, "%s", row->lives);
        cr_assert_eq(fl_counter_row_is_summed(row), strncmp(row->lives, "workers.", 8) == 0, "%s",
                     row->lives);
    }
    free(stats);
}
