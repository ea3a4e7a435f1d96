// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log_record.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

// Beyond the limit there is room for the mark and two NULs; no key is longer than KEY_MOST.
enum { LIMIT = FL_LOG_TEXT - 8, KEY_MOST = 64 };

// va_list is an array on some machines and a struct on others: as a member it is passed alike.
struct arguments {
    va_list list;
};

static void put_bytes(struct fl_log_record *record, const char *bytes, size_t count)
{
    static const char mark[] = "...";
    size_t room = record->bytes < LIMIT ? LIMIT - record->bytes : 0;
    if (record->cut)
        return;
    record->cut = count > room;
    count = record->cut ? room : count;
    memcpy(record->text + record->bytes, bytes, count);
    record->bytes = (uint16_t)(record->bytes + count);
    if (!record->cut)
        return;
    memcpy(record->text + record->bytes, mark, sizeof(mark) - 1);
    record->bytes = (uint16_t)(record->bytes + sizeof(mark) - 1);
}

static void end_word(struct fl_log_record *record)
{
    record->text[record->bytes++] = '\0';
}

// A conversion that is in `spec` alone. Returns the bytes that it makes, in buf.
static int convert_number(const char *spec, const char *length, char conversion,
                          struct arguments *args, char *buf, size_t size)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (strcmp(length, "l") == 0)
        return snprintf(buf, size, spec, va_arg(args->list, unsigned long));
    if (strcmp(length, "ll") == 0)
        return snprintf(buf, size, spec, va_arg(args->list, unsigned long long));
    if (strcmp(length, "z") == 0)
        return snprintf(buf, size, spec, va_arg(args->list, size_t));
    if (strcmp(length, "j") == 0)
        return snprintf(buf, size, spec, va_arg(args->list, uintmax_t));
    if (conversion == 'd' || conversion == 'i' || conversion == 'c')
        return snprintf(buf, size, spec, va_arg(args->list, int));
    return snprintf(buf, size, spec, va_arg(args->list, unsigned));
#pragma GCC diagnostic pop
}

static size_t precision_of(const char *spec, size_t length)
{
    size_t precision = 0;
    const char *point = memchr(spec, '.', length);
    if (!point)
        return SIZE_MAX;
    for (point++; *point >= '0' && *point <= '9'; point++)
        precision = precision * 10 + (size_t)(*point - '0');
    return precision;
}

// Takes the conversion that begins at `format`, a '%'. Returns what follows it.
static const char *put_conversion(struct fl_log_record *record, const char *format,
                                  struct arguments *args)
{
    char spec[32] = "";
    char length[3] = "";
    char buf[64];
    size_t flags = 1 + strspn(format + 1, "-+ #0123456789.");
    size_t modifiers = strspn(format + flags, "hljz");
    size_t all = flags + modifiers + 1;
    char conversion = format[flags + modifiers];
    if (conversion == '%') {
        put_bytes(record, "%", 1);
        return format + all;
    }
    if (conversion == '\0' || all >= sizeof(spec) || modifiers >= sizeof(length))
        return format + strlen(format); // no caller has such a format
    memcpy(spec, format, all);
    memcpy(length, format + flags, modifiers);
    if (conversion == 's') {
        const char *text = va_arg(args->list, const char *);
        text = text ? text : "(null)";
        put_bytes(record, text, strnlen(text, precision_of(spec, all)));
        return format + all;
    }
    int bytes = convert_number(spec, length, conversion, args, buf, sizeof(buf));
    if (bytes > 0)
        put_bytes(record, buf, (size_t)bytes < sizeof(buf) ? (size_t)bytes : sizeof(buf) - 1);
    return format + all;
}

// Takes one KEY=VALUE. Returns what follows it and the blanks behind it.
static const char *put_field(struct fl_log_record *record, const char *format,
                             struct arguments *args)
{
    size_t key = strcspn(format, "= ");
    bool quoted = format[key] == '=' && format[key + 1] == '"';
    put_bytes(record, quoted ? "\"" : "=", 1);
    put_bytes(record, format, key);
    end_word(record);
    format += key + (format[key] == '=') + quoted;
    while (*format && *format != (quoted ? '"' : ' ')) {
        size_t plain = *format == '%' ? 0 : strcspn(format, quoted ? "%\"" : "% ");
        if (plain > 0)
            put_bytes(record, format, plain);
        format = plain > 0 ? format + plain : put_conversion(record, format, args);
    }
    end_word(record);
    format += *format == '"';
    return format + strspn(format, " ");
}

void fl_log_record_vmake(struct fl_log_record *ret_record, int level, const char *format,
                         va_list args)
{
    struct timespec now;
    struct arguments arguments;
    clock_gettime(CLOCK_REALTIME, &now);
    ret_record->time_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    ret_record->level = (uint8_t)level;
    ret_record->bytes = 0;
    ret_record->cut = false;
    va_copy(arguments.list, args);
    while (*format && !ret_record->cut && ret_record->bytes < LIMIT - KEY_MOST)
        format = put_field(ret_record, format, &arguments);
    va_end(arguments.list);
}

void fl_log_record_make(struct fl_log_record *ret_record, int level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fl_log_record_vmake(ret_record, level, format, args);
    va_end(args);
}

bool fl_log_record_next(const struct fl_log_record *record, size_t *position,
                        struct fl_log_field *ret_field)
{
    if (*position >= record->bytes)
        return false;
    const char *at = record->text + *position;
    ret_field->quoted = *at == '"';
    ret_field->key = at + 1;
    ret_field->value = ret_field->key + strlen(ret_field->key) + 1;
    *position = (size_t)(ret_field->value + strlen(ret_field->value) + 1 - record->text);
    return true;
}

const char *fl_log_record_get(const struct fl_log_record *record, const char *key)
{
    struct fl_log_field field;
    for (size_t at = 0; fl_log_record_next(record, &at, &field);) {
        if (strcmp(field.key, key) == 0)
            return field.value;
    }
    return "";
}
