// SPDX-License-Identifier: Apache-2.0
#include "engine/host/memory_limit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/host/procfs.h"

// More than that is no limit: version 1 has no other word for it.
#define UNLIMITED ((uint64_t)1 << 60)

enum { TEXT = 4096, PATH_BYTES = 2 * FL_CGROUP_PATH + 64 };

// --- where cgroups are ---

static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += length) {
        bool begins = at == list || at[-1] == ',';
        if (begins && (at[length] == ',' || at[length] == '\0' || at[length] == '\n'))
            return true;
    }
    return false;
}

void fl_cgroup_mounts(struct fl_cgroup_mounts *ret_mounts)
{
    char line[2048];
    FILE *file = fopen("/proc/self/mounts", "re");
    *ret_mounts = (struct fl_cgroup_mounts){0};
    while (file && fgets(line, sizeof(line), file)) {
        char path[FL_CGROUP_PATH];
        char type[32];
        char options[512];
        if (sscanf(line, "%*s %255s %31s %511s", path, type, options) != 3)
            continue;
        if (strcmp(type, "cgroup2") == 0)
            memcpy(ret_mounts->unified, path, sizeof(path));
        else if (strcmp(type, "cgroup") == 0 && has_word(options, "memory"))
            memcpy(ret_mounts->memory, path, sizeof(path));
    }
    if (file)
        fclose(file);
}

// The path in the line of the hierarchy: "0::PATH", or "N:memory,...:PATH".
static bool find_cgroup(char *text, bool unified, char path[FL_CGROUP_PATH])
{
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':');
        char *at = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!at)
            continue;
        *at = '\0';
        bool its = unified ? strcmp(line, "0:") == 0 : has_word(controllers + 1, "memory");
        if (its)
            return (size_t)snprintf(path, FL_CGROUP_PATH, "%s", at + 1) < FL_CGROUP_PATH;
    }
    return false;
}

// --- what they say ---

struct files {
    const char *limit;
    const char *used;
    const char *hits;
    const char *key; // of `hits`, before the number; NULL: it is alone there
};
static const struct files version_1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                       "memory.failcnt", NULL};
static const struct files version_2 = {"memory.max", "memory.current", "memory.events", "\nmax "};

// False for what is no number: "max".
static bool read_number(const char *mount, const char *cgroup, const char *name, const char *key,
                        uint64_t *ret_number)
{
    char path[PATH_BYTES];
    char text[512];
    char *end = NULL;
    snprintf(path, sizeof(path), "%s%s/%s", mount, cgroup, name);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return false;
    const char *at = key ? strstr(text, key) : text;
    if (!at)
        return false;
    at += key ? strlen(key) : 0;
    *ret_number = strtoull(at, &end, 10);
    return end != at;
}

static void look_at(const char *mount, const char *cgroup, const struct files *files,
                    struct fl_memory_limit *least)
{
    struct fl_memory_limit here = {.version = files == &version_2 ? 2 : 1};
    if (!read_number(mount, cgroup, files->limit, NULL, &here.limit) || here.limit >= UNLIMITED ||
        !read_number(mount, cgroup, files->used, NULL, &here.used))
        return;
    read_number(mount, cgroup, files->hits, files->key, &here.hits);
    snprintf(here.cgroup, sizeof(here.cgroup), "%s", cgroup[0] ? cgroup : "/");
    uint64_t left = here.limit > here.used ? here.limit - here.used : 0;
    uint64_t before = least->limit > least->used ? least->limit - least->used : 0;
    uint64_t hits = least->hits + here.hits; // of all of them, so that it grows with each
    if (least->limit == 0 || left < before)
        *least = here;
    least->hits = hits;
}

static bool look_up(const char *mount, const char *text, const struct files *files,
                    struct fl_memory_limit *ret_limit)
{
    char cgroup[FL_CGROUP_PATH];
    char copy[TEXT];
    snprintf(copy, sizeof(copy), "%s", text);
    if (mount[0] == '\0' || !find_cgroup(copy, files == &version_2, cgroup))
        return false;
    while (cgroup[0] == '/' && cgroup[1] != '\0') { // up to the root, which has no limit
        look_at(mount, cgroup, files, ret_limit);
        *strrchr(cgroup, '/') = '\0';
    }
    return true;
}

int fl_memory_limit_of(const struct fl_cgroup_mounts *mounts, const char *cgroups,
                       struct fl_memory_limit *ret_limit)
{
    struct fl_memory_limit limit = {0};
    bool known = look_up(mounts->unified, cgroups, &version_2, &limit);
    known |= look_up(mounts->memory, cgroups, &version_1, &limit);
    if (!known)
        return -ENOENT;
    *ret_limit = limit;
    return 0;
}

int fl_memory_limit(const struct fl_cgroup_mounts *mounts, pid_t pid,
                    struct fl_memory_limit *ret_limit)
{
    char path[64];
    char text[TEXT];
    snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    ssize_t length = fl_proc_read(path, text, sizeof(text));
    if (length <= 0)
        return length < 0 ? (int)length : -ESRCH;
    return fl_memory_limit_of(mounts, text, ret_limit);
}

void fl_memory_limit_text(const struct fl_memory_limit *limit, char *text, size_t size)
{
    snprintf(text, size, "%s of %s is %" PRIu64 " bytes, %" PRIu64 " are used",
             limit->version == 2 ? version_2.limit : version_1.limit, limit->cgroup, limit->limit,
             limit->used);
}
