// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log_line.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/log_level.h"
#include "engine/base/utf8.h"

enum { ROOM = 8 }; // for a character and the end of a value

struct line {
    char *text;
    size_t size;
    size_t used;
    bool full;
};

static void put_bytes(struct line *line, const char *bytes, size_t count)
{
    if (line->full || count > line->size - line->used) {
        line->full = true;
        return;
    }
    memcpy(line->text + line->used, bytes, count);
    line->used += count;
}

static void put_text(struct line *line, const char *text)
{
    put_bytes(line, text, strlen(text));
}

// Puts the character that begins here, escaped if it has to be. Returns what follows it.
static const char *put_character(struct line *line, const char *at)
{
    static const char escaped[] = "\"\"\\\\\nn\tt\rr"; // what is escaped, and as what
    unsigned char c = (unsigned char)*at;
    char buf[8];
    size_t length = c >= 0x80 ? fl_utf8_length((const unsigned char *)at) : 0;
    if (length > 0) {
        put_bytes(line, at, length);
        return at + length;
    }
    for (size_t i = 0; i + 1 < sizeof(escaped); i += 2) {
        if (*at == escaped[i]) {
            buf[0] = '\\';
            buf[1] = escaped[i + 1];
            put_bytes(line, buf, 2);
            return at + 1;
        }
    }
    if (c >= 0x20 && c < 0x7f)
        put_bytes(line, at, 1);
    else
        put_bytes(line, buf, (size_t)snprintf(buf, sizeof(buf), "\\x%02x", c));
    return at + 1;
}

static bool is_plain(const char *value)
{
    if (!*value)
        return false;
    for (; *value; value++) {
        if (*value <= 0x20 || *value >= 0x7f || strchr("\"\\=", *value))
            return false;
    }
    return true;
}

static void put_value(struct line *line, const struct fl_log_field *field)
{
    if (!field->quoted && is_plain(field->value)) {
        put_text(line, field->value);
        return;
    }
    put_text(line, "\"");
    const char *at = field->value;
    while (*at && line->size - line->used > ROOM)
        at = put_character(line, at);
    put_text(line, *at ? "...\"" : "\"");
}

// Stops before the first field that does not fit.
static void put_fields(struct line *line, const struct fl_log_record *record)
{
    struct fl_log_field field;
    const char *between = "";
    for (size_t at = 0; fl_log_record_next(record, &at, &field);) {
        size_t before = line->used;
        put_text(line, between);
        put_text(line, field.key);
        put_text(line, "=");
        put_value(line, &field);
        if (line->full)
            line->used = before;
        between = " ";
    }
}

size_t fl_log_line_fields(const struct fl_log_record *record, char *buf, size_t size)
{
    struct line line = {.text = buf, .size = size};
    put_fields(&line, record);
    return line.used;
}

const char *fl_log_level_name(int level)
{
    return level <= FL_LOG_ERROR     ? "error"
           : level == FL_LOG_WARNING ? "warning"
           : level == FL_LOG_DEBUG   ? "debug"
                                     : "info";
}

void fl_log_line_time(uint64_t time_ns, char buf[FL_LOG_TIME])
{
    struct tm parts;
    time_t seconds = (time_t)(time_ns / UINT64_C(1000000000));
    gmtime_r(&seconds, &parts);
    snprintf(buf, FL_LOG_TIME, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ",
             (unsigned)(parts.tm_year + 1900) % 10000, (unsigned)(parts.tm_mon + 1) % 100,
             (unsigned)parts.tm_mday % 100, (unsigned)parts.tm_hour % 100,
             (unsigned)parts.tm_min % 100, (unsigned)parts.tm_sec % 100,
             (unsigned)(time_ns / 1000 % 1000000));
}

size_t fl_log_line(const struct fl_log_record *record, const char *process, char *buf, size_t size)
{
    char time[FL_LOG_TIME];
    fl_log_line_time(record->time_ns, time);
    int head = snprintf(buf, size, "time=%s level=%s process=%s process_pid=%d ", time,
                        fl_log_level_name(record->level), process, (int)getpid());
    struct line line = {.text = buf, .size = size - 1, .used = head > 0 ? (size_t)head : 0};
    put_fields(&line, record);
    buf[line.used++] = '\n';
    return line.used;
}
