// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/nearest.h"

enum { SENTENCE = 512, SHOWN = 80 };

// A file that is being read.
struct reading {
    struct conf *conf;
    const struct cli_place *list;
    size_t count;
    unsigned line;
    conf_report *report;
    void *arg;
};

__attribute__((format(printf, 2, 3))) static void say_wrong(struct reading *reading,
                                                            const char *format, ...)
{
    char sentence[SENTENCE];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    reading->conf->wrong++;
    reading->report(reading->arg, reading->conf->path, reading->line, sentence);
}

bool conf_take(const struct cli_option *option, void *place, const char *value,
               char ret_wrong[CLI_WRONG_BYTES])
{
    if (option->kind != CLI_KIND_FLAG)
        return cli_take_value(option, place, value, ret_wrong);
    *(bool *)place = strcmp(value, "on") == 0;
    if (*(bool *)place || strcmp(value, "off") == 0)
        return true;
    snprintf(ret_wrong, CLI_WRONG_BYTES, "is neither on nor off");
    return false;
}

// Cuts what is blank at both ends.
static char *cut_blanks(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return text;
}

static void say_unknown(struct reading *reading, const char *name)
{
    const char *names[CLI_OPTIONS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < reading->count; i++) {
        if (!reading->list[i].option->only_option)
            names[count++] = reading->list[i].option->name;
    }
    const char *near = nearest_word(name, names, count);
    if (near)
        say_wrong(reading, "there is no option '%.*s'; did you mean '%s'?", SHOWN, name, near);
    else
        say_wrong(reading, "there is no option '%.*s'", SHOWN, name);
}

// Judges a value in a place of its own, since a later line or the command line may say otherwise.
static void take_entry(struct reading *reading, size_t i, const char *value)
{
    // Large and aligned enough for what any option writes.
    static union {
        uint64_t number;
        char bytes[4096];
    } scratch;
    char wrong[CLI_WRONG_BYTES];
    struct conf_entry *entry = &reading->conf->entry[i];
    const struct cli_option *option = reading->list[i].option;
    if (option->only_option)
        say_wrong(reading, "'%s' can be given on the command line only", option->name);
    else if (entry->value)
        say_wrong(reading, "'%s' is set twice: line %u sets it, too", option->name, entry->line);
    else if (*value == '\0')
        say_wrong(reading, "'%s' has no value", option->name);
    else if (*value == '"' || *value == '\'')
        say_wrong(reading, "write the value of '%s' without quotes", option->name);
    else if (strstr(value, " #") || strstr(value, "\t#"))
        say_wrong(reading, "a comment needs a line of its own");
    else if (!conf_take(option, &scratch, value, wrong))
        say_wrong(reading, "%s: '%.*s' %s", option->name, SHOWN, value, wrong);
    else
        *entry = (struct conf_entry){value, reading->line};
}

static void take_line(struct reading *reading, char *line)
{
    line = cut_blanks(line);
    if (*line == '\0' || *line == '#')
        return;
    for (const unsigned char *at = (const unsigned char *)line; *at; at++) {
        if (*at < 0x20 && *at != '\t') {
            say_wrong(reading, "it has a control character");
            return;
        }
    }
    char *sign = strchr(line, '=');
    if (!sign) {
        say_wrong(reading, "'%.*s' is not NAME = VALUE", SHOWN, line);
        return;
    }
    *sign = '\0';
    const char *name = cut_blanks(line);
    for (size_t i = 0; i < reading->count; i++) {
        if (strcmp(reading->list[i].option->name, name) == 0) {
            take_entry(reading, i, cut_blanks(sign + 1));
            return;
        }
    }
    say_unknown(reading, name);
}

int conf_read(const char *path, const char *text, size_t bytes, const struct cli_place *list,
              size_t count, conf_report *report, void *arg, struct conf *ret_conf)
{
    *ret_conf = (struct conf){.path = path, .text = malloc(bytes + 1)};
    if (!ret_conf->text)
        return -ENOMEM;
    memcpy(ret_conf->text, text, bytes);
    ret_conf->text[bytes] = '\0';
    struct reading reading = {
        .conf = ret_conf, .list = list, .count = count, .report = report, .arg = arg};
    if (memchr(text, '\0', bytes)) {
        reading.line = 1;
        say_wrong(&reading, "this is no text: it has a byte 0");
        return 0;
    }
    for (char *line = ret_conf->text; line && *line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        reading.line++;
        take_line(&reading, line);
        line = end ? end + 1 : NULL;
    }
    return 0;
}

void conf_free(struct conf *conf)
{
    free(conf->text);
    *conf = (struct conf){.path = NULL};
}

int conf_load(int fd, char **ret_text, size_t *ret_bytes)
{
    size_t size = 0;
    char *text = malloc(CONF_BYTES_MAX + 1);
    if (!text)
        return -ENOMEM;
    for (;;) {
        ssize_t got = pread(fd, text + size, CONF_BYTES_MAX + 1 - size, (off_t)size);
        if (got < 0 && errno == EINTR)
            continue;
        int error = got < 0 ? -errno : size + (size_t)got > CONF_BYTES_MAX ? -EFBIG : 0;
        if (error) {
            free(text);
            return error;
        }
        if (got == 0)
            break;
        size += (size_t)got;
    }
    *ret_text = text;
    *ret_bytes = size;
    return 0;
}

static void say_nothing(void *arg, const char *path, unsigned line, const char *sentence)
{
    (void)arg;
    (void)path;
    (void)line;
    (void)sentence;
}

char *conf_find(const char *path, const struct cli_option *option)
{
    const struct cli_place place = {option, 0};
    struct conf conf;
    char *text = NULL;
    char *found = NULL;
    size_t bytes = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int error = fd < 0 ? -errno : conf_load(fd, &text, &bytes);
    if (fd >= 0)
        close(fd);
    if (error)
        return NULL;
    if (conf_read(path, text, bytes, &place, 1, say_nothing, NULL, &conf) == 0) {
        found = conf.entry[0].value ? strdup(conf.entry[0].value) : NULL;
        conf_free(&conf);
    }
    free(text);
    return found;
}
