// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <string.h>

#include "tools/verbs/report.h"

void report_escape(FILE *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default: // what is invisible is shown as a question mark, as on a terminal
            fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
        }
    }
}

char *report_count(uint64_t count, char buf[REPORT_TEXT])
{
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, count);
    char *to = buf;
    for (size_t i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return buf;
}

// Three digits, or all before the point.
static char *with_unit(double number, const char *unit, char buf[REPORT_TEXT])
{
    int digits = number >= 99.95 || number == 0 ? 0 : number >= 9.995 ? 1 : 2;
    snprintf(buf, REPORT_TEXT, "%.*f %s", digits, number, unit);
    return buf;
}

char *report_time(double us, char buf[REPORT_TEXT])
{
    if (us <= 0)
        snprintf(buf, REPORT_TEXT, "0");
    if (us <= 0)
        return buf;
    if (us < 1000)
        return with_unit(us, "µs", buf);
    if (us < 1e6)
        return with_unit(us / 1e3, "ms", buf);
    if (us < 120e6)
        return with_unit(us / 1e6, "s", buf);
    return us < 7200e6 ? with_unit(us / 60e6, "min", buf) : with_unit(us / 3600e6, "h", buf);
}

char *report_bytes(uint64_t bytes, char buf[REPORT_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double number = (double)bytes;
    unsigned unit = 0;
    for (; number >= 1024 && unit < 4; unit++)
        number /= 1024;
    if (number == (double)(uint64_t)number)
        snprintf(buf, REPORT_TEXT, "%.0f %s", number, units[unit]);
    else
        with_unit(number, units[unit], buf);
    return buf;
}

char *report_share(double part, double all, char buf[REPORT_TEXT])
{
    double percent = all > 0 ? 100 * part / all : 0;
    if (part > 0 && percent < 0.1)
        snprintf(buf, REPORT_TEXT, "&lt; 0.1 %%");
    else
        snprintf(buf, REPORT_TEXT, "%.*f %%", percent >= 10 || percent == 0 ? 0 : 1, percent);
    return buf;
}

// --- quantiles ---

static uint64_t count_below(const struct report_buckets *buckets, double ns)
{
    uint64_t count = 0;
    for (size_t i = 0; i < buckets->count && buckets->bucket[i].to <= ns; i++)
        count += buckets->bucket[i].count;
    return count;
}

// The end of the first bucket by which enough have been counted.
double report_quantile(const struct report *report, int waited, double share)
{
    unsigned first = waited == REPORT_ALL ? 0 : (unsigned)waited;
    unsigned end = waited == REPORT_ALL ? REPORT_WAITEDS : first + 1;
    uint64_t all = 0;
    double max = 0;
    double best = 0;
    for (unsigned i = first; i < end; i++) {
        all += report->latency[i].buckets.sum;
        max = (double)report->latency[i].max_ns > max ? (double)report->latency[i].max_ns : max;
    }
    best = max;
    for (unsigned i = first; i < end; i++) {
        const struct report_buckets *buckets = &report->latency[i].buckets;
        for (size_t at = 0; at < buckets->count; at++) {
            double ns = buckets->bucket[at].to;
            uint64_t count = 0;
            for (unsigned k = first; ns < best && k < end; k++)
                count += count_below(&report->latency[k].buckets, ns);
            if (ns < best && (double)count >= share * (double)all)
                best = ns;
        }
    }
    return best;
}
