// SPDX-License-Identifier: Apache-2.0
#include "engine/host/cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/host/procfs.h"

enum { PATH = 512 };

// The names of a resource's files, in the two versions.
struct files {
    const char *controller;
    const char *limit[2];
    const char *used[2];
};
static const struct files files_of[] = {
    [FL_CGROUP_MEMORY] = {"memory",
                          {"memory.limit_in_bytes", "memory.max"},
                          {"memory.usage_in_bytes", "memory.current"}},
    [FL_CGROUP_HUGE_PAGES] = {"hugetlb",
                              {"hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"},
                              {"hugetlb.2MB.usage_in_bytes", "hugetlb.2MB.current"}},
};

// Where the hierarchy of a controller is mounted, and where the process is in it.
struct place {
    int version; // 1 or 2
    char mount[PATH];
    char root[PATH];   // of the mount, in the hierarchy
    char inside[PATH]; // of the process, likewise
};

// Whether one of the words of a list ("rw,hugetlb") is this one.
static bool lists(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += length) {
        bool begins = at == list || at[-1] == ',';
        if (begins && (at[length] == '\0' || at[length] == ','))
            return true;
    }
    return false;
}

// "N:CONTROLLERS:PATH"; of version 2 "0::PATH".
static bool take_process_line(struct place *place, char *line, const char *controller)
{
    char *list = strchr(line, ':');
    char *path = list ? strchr(list + 1, ':') : NULL;
    if (!path)
        return false;
    *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    bool is = place->version == 2 ? strcmp(line, "0:") == 0 : lists(list + 1, controller);
    if (is)
        snprintf(place->inside, sizeof(place->inside), "%s", path);
    return is;
}

static bool find_process(struct place *place, pid_t pid, const char *controller)
{
    char path[64];
    char line[PATH + 128];
    bool found = false;
    snprintf(path, sizeof(path), pid > 0 ? "/proc/%d/cgroup" : "/proc/self/cgroup", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found = take_process_line(place, line, controller);
    if (file)
        fclose(file);
    return found;
}

// man 5 proc: ID PARENT DEVICE ROOT MOUNT OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS
static bool take_mount_line(struct place *place, const char *line, const char *controller)
{
    char type[16];
    char options[256];
    const char *tail = strstr(line, " - ");
    if (!tail || sscanf(tail, " - %15s %*s %255s", type, options) != 2 ||
        sscanf(line, "%*s %*s %*s %511s %511s", place->root, place->mount) != 2)
        return false;
    return place->version == 2 ? strcmp(type, "cgroup2") == 0
                               : strcmp(type, "cgroup") == 0 && lists(options, controller);
}

static bool find_mount(struct place *place, const char *controller)
{
    char line[4 * PATH];
    bool found = false;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found = take_mount_line(place, line, controller);
    if (file)
        fclose(file);
    return found;
}

// The directory of the process, below the mount; false if it lies outside of it.
static bool directory_of(const struct place *place, char *ret_path, size_t size)
{
    size_t root = strcmp(place->root, "/") == 0 ? 0 : strlen(place->root);
    if (strncmp(place->inside, place->root, root) != 0 || strstr(place->inside, "/.."))
        return false;
    const char *rest = place->inside + root;
    int length = snprintf(ret_path, size, "%s%s", place->mount, strcmp(rest, "/") == 0 ? "" : rest);
    return length > 0 && (size_t)length < size;
}

static int read_number(const char *directory, const char *name, uint64_t *ret_number)
{
    char path[2 * PATH + 64];
    char text[64];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    ssize_t got = fl_proc_read(path, text, sizeof(text));
    if (got < 0)
        return (int)got;
    *ret_number = strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
    return 0;
}

// From the process's directory up to where the hierarchy is mounted. The topmost has no limits.
static int look_upwards(const struct place *place, const struct files *files, uint64_t room,
                        struct fl_cgroup_limit *ret_limit)
{
    char path[2 * PATH];
    size_t top = strlen(place->mount);
    bool any = false;
    if (!directory_of(place, path, sizeof(path)))
        return -ENOENT;
    for (;;) {
        uint64_t limit = UINT64_MAX;
        uint64_t used = 0;
        int v = place->version - 1;
        if (read_number(path, files->limit[v], &limit) == 0 &&
            read_number(path, files->used[v], &used) == 0) {
            any = true;
            if (limit != UINT64_MAX && (used >= limit || limit - used < room)) {
                snprintf(ret_limit->path, sizeof(ret_limit->path), "%.255s", path);
                ret_limit->limit = limit;
                ret_limit->used = used;
                return 1;
            }
        }
        char *slash = strrchr(path, '/');
        if (strlen(path) <= top || !slash)
            return any || place->version == 1 ? 0 : -ENOENT;
        *slash = '\0';
    }
}

int fl_cgroup_full(pid_t pid, enum fl_cgroup_resource resource, uint64_t room,
                   struct fl_cgroup_limit *ret_limit)
{
    const struct files *files = &files_of[resource];
    int result = -ENOENT;
    for (int version = 1; version <= 2 && result == -ENOENT; version++) {
        struct place place = {.version = version};
        if (find_mount(&place, files->controller) && find_process(&place, pid, files->controller))
            result = look_upwards(&place, files, room, ret_limit);
    }
    return result;
}
