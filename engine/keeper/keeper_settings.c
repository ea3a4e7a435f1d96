// SPDX-License-Identifier: Apache-2.0
#include "engine/keeper/keeper_settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/link/channel.h"

enum { CHUNK = 64 << 10, BYTES_MOST = 1 << 20 };
#define VARIABLE "FAULTLINE_SETTINGS"

static char variable[sizeof(VARIABLE) + 32];

// A number that is not in the way of an engine's channel.
static int make_memfd(void)
{
    int low = memfd_create("faultline-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (low < 0)
        return -errno;
    int fd = fcntl(low, F_DUPFD_CLOEXEC, FL_ENGINE_CHANNEL + 1);
    int error = -errno;
    close(low);
    return fd < 0 ? error : fd;
}

static int write_all(int fd, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t put = write(fd, text, bytes);
        if (put < 0 && errno != EINTR)
            return -errno;
        if (put > 0) {
            text += put;
            bytes -= (size_t)put;
        }
    }
    return 0;
}

static int copy_all(int from, int to)
{
    static char chunk[CHUNK];
    size_t size = 0;
    for (;;) {
        ssize_t got = read(from, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? 0 : -errno;
        size += (size_t)got;
        int error = size > BYTES_MOST ? -EFBIG : write_all(to, chunk, (size_t)got);
        if (error)
            return error;
    }
}

static int finish(int fd, int error, int *ret_fd)
{
    if (!error &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
        error = -errno;
    if (error)
        close(fd);
    else
        *ret_fd = fd;
    return error;
}

int fl_settings_make(const char *text, unsigned long bytes, int *ret_fd)
{
    int fd = make_memfd();
    return fd < 0 ? fd : finish(fd, write_all(fd, text, bytes), ret_fd);
}

int fl_settings_read(const char *path, bool must_exist, int *ret_fd)
{
    // A pipe or a device that says nothing must not stop a keeper.
    int file = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (path && file < 0 && (must_exist || errno != ENOENT))
        return -errno;
    int fd = make_memfd();
    int error = fd < 0 ? fd : file >= 0 ? copy_all(file, fd) : 0;
    if (file >= 0)
        close(file);
    return fd < 0 ? error : finish(fd, error, ret_fd);
}

// --- from process to process ---

bool fl_settings_inherit(struct fl_settings *ret_settings)
{
    const char *text = getenv(VARIABLE);
    char *end = NULL;
    if (!text)
        return false;
    int started = (int)strtol(text, &end, 10);
    int current = *end == ',' ? (int)strtol(end + 1, NULL, 10) : -1;
    unsetenv(VARIABLE);
    *ret_settings = (struct fl_settings){started, current};
    fl_settings_keep(ret_settings);
    return fcntl(started, F_GET_SEALS) >= 0 && fcntl(current, F_GET_SEALS) >= 0;
}

void fl_settings_prepare(void)
{
    snprintf(variable, sizeof(variable), VARIABLE "=");
    putenv(variable);
}

void fl_settings_pass_on(const struct fl_settings *settings)
{
    snprintf(variable, sizeof(variable), VARIABLE "=%d,%d", settings->started, settings->current);
    fcntl(settings->started, F_SETFD, 0);
    fcntl(settings->current, F_SETFD, 0);
}

void fl_settings_keep(const struct fl_settings *settings)
{
    fcntl(settings->started, F_SETFD, FD_CLOEXEC);
    fcntl(settings->current, F_SETFD, FD_CLOEXEC);
}

void fl_settings_close(const struct fl_settings *settings)
{
    if (settings->current >= 0 && settings->current != settings->started)
        close(settings->current);
    if (settings->started >= 0)
        close(settings->started);
}
