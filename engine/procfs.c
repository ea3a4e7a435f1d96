// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fl_proc_each(const char *directory, int (*fn)(void *arg, int number), void *arg)
{
    int result = 0;
    DIR *entries = opendir(directory);
    if (!entries)
        return -errno;
    const struct dirent *entry;
    while (result == 0 && (entry = readdir(entries)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0]))
            result = fn(arg, (int)strtol(entry->d_name, NULL, 10));
    }
    closedir(entries);
    return result;
}

ssize_t fl_proc_read(const char *path, char *buf, size_t size)
{
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = 1;
    while (got > 0 && used < size - 1) {
        got = read(fd, buf + used, size - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    }
    int error = got < 0 ? -errno : 0;
    close(fd);
    buf[used] = '\0';
    return error ? error : (ssize_t)used;
}

int fl_proc_link(const char *path, char *buf, size_t size)
{
    ssize_t length = readlink(path, buf, size - 1);
    if (length < 0)
        return -errno;
    buf[length] = '\0';
    return 0;
}

bool fl_proc_number(const char *text, const char *key, uint64_t *ret_number)
{
    char *end = NULL;
    const char *at = strstr(text, key);
    if (!at)
        return false;
    at += strlen(key);
    at += strspn(at, " \t:");
    *ret_number = strtoull(at, &end, 10);
    return end != at;
}

void fl_proc_name(pid_t pid, char *buf, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    if (fl_proc_read(path, buf, size) <= 0)
        snprintf(buf, size, "?");
    buf[strcspn(buf, "\n")] = '\0';
}

bool fl_proc_has_uffd_memory(pid_t pid)
{
    char path[64];
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && !found && getline(&line, &room, file) > 0)
        found = strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " um") != NULL;
    free(line);
    if (file)
        fclose(file);
    return found;
}

static bool overlaps(const struct fl_layout *layout, uint64_t from, uint64_t to)
{
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        if (from < region->base + region->bytes && to > region->base)
            return true;
    }
    return false;
}

bool fl_proc_unmapped(pid_t pid, const struct fl_layout *layout)
{
    char path[64];
    char *line = NULL;
    size_t room = 0;
    bool any = false;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "re");
    bool mapped = !file;
    while (file && !mapped && getline(&line, &room, file) > 0) {
        char *rest = NULL;
        uint64_t from = strtoull(line, &rest, 16);
        uint64_t to = *rest == '-' ? strtoull(rest + 1, NULL, 16) : UINT64_MAX;
        mapped = overlaps(layout, from, to);
        any = true;
    }
    free(line);
    if (file)
        fclose(file);
    return any && !mapped;
}
