// SPDX-License-Identifier: Apache-2.0
//
// Records of the log: how they are made, escaped, limited and kept. What becomes of them with a
// reader that does not read is in tests/e2e/log.c.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/base/log_limit.h"
#include "engine/base/log_line.h"
#include "engine/base/log_queue.h"
#include "engine/base/log_record.h"

static struct fl_log_record record;
static char line[FL_LOG_LINE + 1];

static const char *fields(void)
{
    size_t length = fl_log_line_fields(&record, line, FL_LOG_LINE);
    line[length] = '\0';
    return line;
}

Test(log, a_record_has_every_conversion)
{
    fl_log_record_make(&record, FL_LOG_INFO,
                       "event=all d=%d u=%u x=0x%x c=%c z=%zu ll=%lld u64=%" PRIu64
                       " x64=%016" PRIx64 " part=%.3s path=%s/%s.sock reason=\"%d of %s: 100%%\"",
                       -1, 2u, 0xabcu, 'c', (size_t)3, -4LL, UINT64_MAX, UINT64_C(0x12ab), "abcdef",
                       "dir", "name", 5, "six words");
    cr_assert_str_eq(
        fields(),
        "event=all d=-1 u=2 x=0xabc c=c z=3 ll=-4 u64=18446744073709551615 "
        "x64=00000000000012ab part=abc path=dir/name.sock reason=\"5 of six words: 100%\"");
    cr_assert_str_eq(fl_log_record_get(&record, "reason"), "5 of six words: 100%");
    cr_assert_str_eq(fl_log_record_get(&record, "none"), "");
}

// Whatever a value holds, there is one line, and each of its keys is one of the format.
Test(log, no_value_makes_a_line_or_a_key)
{
    static const struct {
        const char *value;
        const char *shown;
    } cases[] = {
        {"plain-word_1.2/3:4", "k=plain-word_1.2/3:4 r=\"plain-word_1.2/3:4\""},
        {"", "k=\"\" r=\"\""},
        {"two words", "k=\"two words\" r=\"two words\""},
        {"a\nevent=forged", "k=\"a\\nevent=forged\" r=\"a\\nevent=forged\""},
        {"a=b", "k=\"a=b\" r=\"a=b\""},
        {"q\" event=x \\", "k=\"q\\\" event=x \\\\\" r=\"q\\\" event=x \\\\\""},
        {"\t\r\033[31m\x7f", "k=\"\\t\\r\\x1b[31m\\x7f\" r=\"\\t\\r\\x1b[31m\\x7f\""},
        {"gr\xc3\xbc\xc3\x9f", "k=\"gr\xc3\xbc\xc3\x9f\" r=\"gr\xc3\xbc\xc3\x9f\""},
        {"\xc2\x9b"
         "1m",
         "k=\"\\xc2\\x9b1m\" r=\"\\xc2\\x9b1m\""},         // a control character of C1
        {"\xff\xc3", "k=\"\\xff\\xc3\" r=\"\\xff\\xc3\""}, // no UTF-8
        {"\xe2\x82", "k=\"\\xe2\\x82\" r=\"\\xe2\\x82\""}, // half a character
        {"\xc0\xaf\xed\xa0\x80", "k=\"\\xc0\\xaf\\xed\\xa0\\x80\" r=\"\\xc0\\xaf\\xed\\xa0\\x80\""},
        {"%s%n", "k=%s%n r=\"%s%n\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fl_log_record_make(&record, FL_LOG_INFO, "k=%s r=\"%s\"", cases[i].value, cases[i].value);
        cr_assert_str_eq(fields(), cases[i].shown);
    }
}

Test(log, a_line_says_when_how_bad_and_from_whom)
{
    int pid = 0;
    fl_log_record_make(&record, FL_LOG_WARNING, "event=%s", "x");
    record.time_ns = UINT64_C(1764462927123456789);
    size_t length = fl_log_line(&record, "keeper", line, FL_LOG_LINE);
    line[length] = '\0';
    cr_assert_eq(sscanf(line,
                        "time=2025-11-30T00:35:27.123456Z level=warning process=keeper "
                        "process_pid=%d event=x\n",
                        &pid),
                 1, "%s", line);
    cr_assert_gt(pid, 0);
    cr_assert_eq(line[length - 1], '\n');
}

// However long its values are, and whatever escaping adds to them.
Test(log, a_line_fits_into_a_pipe_in_one_piece)
{
    static char longest[3 * FL_LOG_TEXT];
    for (int byte = 1; byte < 256; byte += 13) {
        for (size_t bytes = FL_LOG_TEXT - 100; bytes < sizeof(longest); bytes += 97) {
            memset(longest, byte, bytes);
            longest[bytes] = '\0';
            fl_log_record_make(&record, FL_LOG_ERROR, "event=x a=%s b=%s reason=\"%s\"", "first",
                               longest, longest);
            cr_assert_leq(record.bytes, FL_LOG_TEXT);
            size_t length = fl_log_line(&record, "engine", line, FL_LOG_LINE);
            cr_assert_leq(length, FL_LOG_LINE);
            cr_assert_eq(memchr(line, '\n', length), line + length - 1);
            line[length] = '\0';
            cr_assert_not_null(strstr(line, " event=x a=first"));
            size_t quotes = 0;
            for (const char *at = line; *at; at += 1 + (*at == '\\'))
                quotes += *at == '"';
            cr_assert_eq(quotes % 2, 0, "%s", line);
        }
    }
}

Test(log, a_value_that_is_cut_says_so)
{
    static char longest[2 * FL_LOG_TEXT];
    memset(longest, 'a', sizeof(longest) - 1);
    fl_log_record_make(&record, FL_LOG_ERROR, "event=x reason=\"%s\" after=1", longest);
    cr_assert_not_null(strstr(fields(), "aaa...\""));
    cr_assert_null(strstr(line, "after"));
}

// --- the queue ---

Test(log, the_queue_keeps_order_around_its_end_and_takes_no_more_than_it_has)
{
    static struct fl_log_queue queue;
    static struct fl_log_record taken;
    unsigned in = 0;
    unsigned out = 0;
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        char text[600];
        size_t length = (size_t)rand() % (sizeof(text) - 1);
        memset(text, 'a' + rand() % 26, length);
        text[length] = '\0';
        fl_log_record_make(&record, FL_LOG_ERROR, "event=e number=%u text=%s", in, text);
        if (rand() % 3)
            in += fl_log_queue_put(&queue, &record);
        if (rand() % 2 && fl_log_queue_take(&queue, &taken))
            cr_assert_eq(atoi(fl_log_record_get(&taken, "number")), (int)out++);
        cr_assert_leq(queue.used, FL_LOG_QUEUE);
    }
    cr_assert_gt(in, 2000);
    while (fl_log_queue_take(&queue, &taken))
        cr_assert_eq(atoi(fl_log_record_get(&taken, "number")), (int)out++);
    cr_assert_eq(in, out);
}

Test(log, the_last_quarter_of_the_queue_is_for_what_went_wrong)
{
    static struct fl_log_queue queue;
    fl_log_record_make(&record, FL_LOG_INFO, "event=e");
    while (fl_log_queue_put(&queue, &record)) {
    }
    cr_assert_geq(queue.used, FL_LOG_QUEUE / 2);
    cr_assert_leq(queue.used, FL_LOG_QUEUE / 4 * 3);
    fl_log_record_make(&record, FL_LOG_WARNING, "event=e");
    cr_assert(fl_log_queue_put(&queue, &record));
}

// --- the limits ---

static struct fl_log_limit limit;
static uint64_t now = FL_NS_PER_S;

// How many of so many lines are allowed.
static unsigned allowed(unsigned lines, const char *event, const char *image, int pid)
{
    unsigned count = 0;
    for (unsigned i = 0; i < lines; i++) {
        fl_log_record_make(&record, FL_LOG_WARNING, "event=%s image=%s pid=%d", event, image, pid);
        count += fl_log_limit_allows(&limit, &record, now);
    }
    return count;
}

static uint64_t told(bool all)
{
    uint64_t lines = 0;
    while (fl_log_limit_tell(&limit, now, all, &record)) {
        cr_assert_str_eq(fl_log_record_get(&record, "event"), "log_held_back");
        lines += strtoull(fl_log_record_get(&record, "lines"), NULL, 10);
    }
    return lines;
}

Test(log, one_peer_is_limited_and_no_other_loses_a_line)
{
    unsigned lines = allowed(31000, "refuse", "image", 1);
    cr_assert_leq(lines, 100);
    cr_assert_geq(lines, 50);
    cr_assert_eq(allowed(5, "refuse", "image", 2), 5, "another peer");
    cr_assert_eq(allowed(5, "refuse", "other", 1), 5, "another image");
    cr_assert_eq(allowed(5, "kill", "image", 1), 5, "another event");
    cr_assert_eq(told(false), 0, "not in the middle of it");
    now += 2 * FL_NS_PER_S;
    cr_assert_eq(told(false), 31000 - lines);
    cr_assert_eq(told(true), 0);
    cr_assert_geq(allowed(100, "refuse", "image", 1), 10, "it may speak again");
}

Test(log, what_never_pauses_is_told_of_all_the_same)
{
    unsigned lines = 0;
    uint64_t counted = 0;
    for (unsigned ms = 0; ms < 30000; ms += 10, now += 10 * FL_NS_PER_MS) {
        lines += allowed(10, "refuse", "image", 1);
        counted += told(false);
    }
    cr_assert_gt(counted, 15000);
    cr_assert_leq(lines, 100 + 300 + 1);
    cr_assert_eq(counted + told(true) + lines, 30000);
}

// A peer that is another process each time, and one that says another image each time.
Test(log, many_peers_make_no_more_than_the_limits_of_the_image_and_the_event)
{
    unsigned lines = 0;
    for (int pid = 1; pid <= 20000; pid++)
        lines += allowed(1, "refuse", "image", pid);
    cr_assert_leq(lines, 1000);
    cr_assert_geq(lines, 900);
    unsigned more = 0;
    for (int number = 0; number < 20000; number++) {
        char image[32];
        snprintf(image, sizeof(image), "image-%d", number);
        more += allowed(1, "refuse", image, 1);
    }
    cr_assert_leq(lines + more, 4000);
    cr_assert_eq(told(true), 40000 - lines - more);
}

// More peers than there are places, each above its limit: none of their lines is forgotten.
Test(log, what_is_held_back_is_counted_when_places_run_out)
{
    unsigned lines = 0;
    for (int pid = 1; pid <= 3000; pid++)
        lines += allowed(110, "refuse", "image", pid);
    cr_assert_eq(told(true) + lines, 3000 * 110);
}

Test(log, levels_have_names)
{
    enum fl_log_level level = FL_LOG_INFO;
    cr_assert(fl_log_parse_level("error", &level) && level == FL_LOG_ERROR);
    cr_assert(fl_log_parse_level("warning", &level) && level == FL_LOG_WARNING);
    cr_assert(fl_log_parse_level("info", &level) && level == FL_LOG_INFO);
    cr_assert(fl_log_parse_level("debug", &level) && level == FL_LOG_DEBUG);
    cr_assert_not(fl_log_parse_level("loud", &level));
    cr_assert_not(fl_log_parse_level("", &level));
}
