// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log.h"

#include <ctype.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

// A log that no process reads must not stop a worker: a line that would have to wait is dropped,
// and counted. One thread at a time, so that the room that poll() saw is still there for the write.
static void put_line(const char *line, size_t length)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static unsigned long dropped;
    struct pollfd poll_fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    pthread_mutex_lock(&lock);
    if (poll(&poll_fd, 1, 0) != 1 || !(poll_fd.revents & POLLOUT)) {
        dropped++;
    } else {
        if (dropped > 0)
            dprintf(STDERR_FILENO, "event=log_dropped lines=%lu\n", dropped);
        dropped = 0;
        ssize_t written = write(STDERR_FILENO, line, length);
        (void)written;
    }
    pthread_mutex_unlock(&lock);
}

void fl_log(enum fl_log_level level, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    size_t used = 0;
    if (getenv("JOURNAL_STREAM"))
        used = (size_t)snprintf(line, sizeof(line), "<%d>", (int)level);
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    if (length > 0)
        used += (size_t)length;
    if (used > sizeof(line) - 2)
        used = sizeof(line) - 2;
    // No format has a control character: what has come with a value would make a line of its own.
    for (size_t i = 0; i < used; i++) {
        unsigned char c = (unsigned char)line[i];
        line[i] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    line[used++] = '\n';
    put_line(line, used);
}

char *fl_log_new_word(const char *text)
{
    size_t length = strlen(text);
    bool plain = length > 0;
    for (size_t i = 0; plain && i < length; i++)
        plain = isgraph((unsigned char)text[i]) && !strchr("\"\\=", text[i]);
    char *word = malloc(length + sizeof("\"\""));
    if (!word)
        return NULL;
    if (plain)
        return strcpy(word, text);
    word[0] = '"';
    fl_log_text(text, word + 1, length + 1);
    return strcat(word, "\"");
}

const char *fl_log_text(const char *text, char *buf, size_t size)
{
    size_t i = 0;
    for (; text[i] != '\0' && i + 1 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        buf[i] = (char)(c < 0x20 || c == '"' || c == '\\' || c == 0x7f ? '?' : c);
    }
    buf[i] = '\0';
    return buf;
}
