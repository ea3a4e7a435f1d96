// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log_output.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-journal.h>

#include "engine/base/log_line.h"

enum { FIELDS = 32, FIELD_TEXT = FL_LOG_TEXT + FIELDS * 16, LOOK_AGAIN_MS = 100 };

// True if stderr is the journal's stream. A process that has merely inherited $JOURNAL_STREAM
// writes elsewhere (systemd.exec(5)), and an engine that a new keeper has found has another one's.
static atomic_bool leads_to_journal;

static bool is_named_by_environment(void)
{
    const char *stream = getenv("JOURNAL_STREAM"); // NOLINT(concurrency-mt-unsafe)
    uintmax_t dev = 0;
    uintmax_t ino = 0;
    struct stat status;
    return stream && sscanf(stream, "%ju:%ju", &dev, &ino) == 2 &&
           fstat(STDERR_FILENO, &status) == 0 && status.st_dev == dev && status.st_ino == ino;
}

static bool is_connected_to_journal(void)
{
    static const char stream[] = "/run/systemd/journal/stdout";
    struct sockaddr_un peer = {0};
    socklen_t size = sizeof(peer);
    return getpeername(STDERR_FILENO, (struct sockaddr *)&peer, &size) == 0 &&
           peer.sun_family == AF_UNIX && strncmp(peer.sun_path, stream, sizeof(peer.sun_path)) == 0;
}

void fl_log_output_open(void)
{
    atomic_store(&leads_to_journal, is_named_by_environment() || is_connected_to_journal());
}

// --- journald ---

struct fields {
    struct iovec io[FIELDS];
    unsigned count;
    char text[FIELD_TEXT];
    size_t used;
};

static void add_field(struct fields *fields, const char *prefix, const char *key, const char *value)
{
    char *at = fields->text + fields->used;
    size_t room = sizeof(fields->text) - fields->used;
    int length = snprintf(at, room, "%s%s=%s", prefix, key, value);
    if (length < 0 || (size_t)length >= room || fields->count == FIELDS)
        return;
    for (char *c = at + strlen(prefix); *c != '='; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    fields->io[fields->count++] = (struct iovec){at, (size_t)length};
    fields->used += (size_t)length + 1;
}

// Whatever a value holds, journald takes it as it is: the length is told, not an end.
static bool send_fields(const struct fl_log_record *record, const char *process)
{
    static struct fields fields; // the log's thread alone
    char message[FL_LOG_LINE] = "MESSAGE=";
    char priority[24];
    char time[FL_LOG_TIME];
    size_t length = fl_log_line_fields(record, message + 8, sizeof(message) - 8);
    fields.used = 0;
    fields.io[0] = (struct iovec){message, 8 + length};
    fields.count = 1;
    snprintf(priority, sizeof(priority), "%u", record->level);
    fl_log_line_time(record->time_ns, time);
    add_field(&fields, "", "PRIORITY", priority);
    add_field(&fields, "", "SYSLOG_IDENTIFIER", "faultline");
    add_field(&fields, "FAULTLINE_", "TIME", time);
    add_field(&fields, "FAULTLINE_", "PROCESS", process);
    struct fl_log_field field;
    for (size_t at = 0; fl_log_record_next(record, &at, &field);)
        add_field(&fields, "FAULTLINE_", field.key, field.value);
    return sd_journal_sendv(fields.io, (int)fields.count) == 0;
}

// --- stderr ---

// With the prefix by which journald knows the level, where its own socket did not take the record.
static size_t make_line(const struct fl_log_record *record, const char *process, char *buf,
                        size_t size)
{
    size_t prefix = leads_to_journal ? (size_t)snprintf(buf, size, "<%u>", record->level) : 0;
    return prefix + fl_log_line(record, process, buf + prefix, size - prefix);
}

// Within write() it would wait for the old reader for ever when stderr is made another file's.
static void wait_for_room(void)
{
    struct pollfd poll_fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    while (poll(&poll_fd, 1, LOOK_AGAIN_MS) == 0) {
    }
}

bool fl_log_output_write(const struct fl_log_record *record, const char *process)
{
    char line[FL_LOG_LINE];
    if (leads_to_journal && send_fields(record, process))
        return true;
    size_t length = make_line(record, process, line, sizeof(line));
    for (size_t written = 0; written < length;) {
        wait_for_room();
        ssize_t count = write(STDERR_FILENO, line + written, length - written);
        if (count < 0 && errno != EINTR && errno != EAGAIN) // another process may not let it block
            return false;
        written += count > 0 ? (size_t)count : 0;
    }
    return true;
}

bool fl_log_output_try(const struct fl_log_record *record, const char *process)
{
    char line[FL_LOG_LINE];
    struct pollfd poll_fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&poll_fd, 1, 0) != 1 || !(poll_fd.revents & POLLOUT))
        return false;
    size_t length = make_line(record, process, line, sizeof(line));
    return write(STDERR_FILENO, line, length) == (ssize_t)length;
}
