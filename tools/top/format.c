// SPDX-License-Identifier: Apache-2.0
#include "tools/top/format.h"

#include <stdio.h>

// Three digits at least: "9.9", "99", "999".
static char *short_number(double value, const char *unit, char *buf)
{
    snprintf(buf, TOP_COLUMN, value < 9.95 && *unit ? "%.1f%s" : "%.0f%s", value, unit);
    return buf;
}

char *top_rate(double value, char buf[TOP_COLUMN])
{
    if (value < 0)
        return snprintf(buf, TOP_COLUMN, "-"), buf;
    if (value < 9999.5)
        return short_number(value, "", buf);
    if (value < 999.5e3)
        return short_number(value / 1e3, "k", buf);
    return short_number(value / 1e6, "M", buf);
}

char *top_us(double us, char buf[TOP_COLUMN])
{
    if (us < 0)
        return snprintf(buf, TOP_COLUMN, "-"), buf;
    if (us < 999.5)
        return short_number(us, "us", buf);
    if (us < 999.5e3)
        return short_number(us / 1e3, "ms", buf);
    return short_number(us / 1e6, "s", buf);
}

char *top_bytes(uint64_t bytes, char buf[TOP_COLUMN])
{
    static const char *const unit[] = {"K", "M", "G", "T", "P"};
    double value = (double)bytes / 1024;
    unsigned i = 0;
    for (; value >= 999.5 && i < sizeof(unit) / sizeof(unit[0]) - 1; i++)
        value /= 1024;
    return short_number(value, unit[i], buf);
}

char *top_share(double share, char buf[TOP_COLUMN])
{
    if (share < 0)
        return snprintf(buf, TOP_COLUMN, "-"), buf;
    snprintf(buf, TOP_COLUMN, "%.0f%%", share * 100);
    return buf;
}

char *top_seconds(double seconds, char buf[TOP_COLUMN])
{
    uint64_t whole = seconds > 0 ? (uint64_t)seconds : 0;
    unsigned days = (unsigned)(whole / 86400);
    unsigned hours = (unsigned)(whole / 3600 % 24);
    unsigned minutes = (unsigned)(whole / 60 % 60);
    if (days > 0)
        snprintf(buf, TOP_COLUMN, "%ud %uh", days, hours);
    else if (hours > 0)
        snprintf(buf, TOP_COLUMN, "%uh %02um", hours, minutes);
    else
        snprintf(buf, TOP_COLUMN, "%um %02us", minutes, (unsigned)(whole % 60));
    return buf;
}
