// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor/doctor_left.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/doctor/diagnosis.h"
#include "engine/host/procfs.h"

#define PREFIX "faultline-checkpoint-"
#define FIFO "/memory"
enum { DIGITS = 16, PATH = 96, CALL = 512, ROOT = 64 };
// Of one process: names are made up easily, and each is looked for among all.
enum { MOST = 32 };

// The name in a path; false if there is none.
static bool find_name(const char *path, char name[FL_MEETING_NAME])
{
    const char *at = strstr(path, PREFIX);
    size_t length = strlen(PREFIX);
    if (!at)
        return false;
    for (int i = 0; i < DIGITS; i++) {
        if (!isxdigit((unsigned char)at[length++]))
            return false;
    }
    if (at[length] != '\0' && at[length] != '/' && at[length] != ' ') // " (deleted)"
        return false;
    snprintf(name, FL_MEETING_NAME, "%.*s", (int)length, at);
    return true;
}

int fl_doctor_note_held(struct fl_held_meetings *held, const char *target)
{
    char name[FL_MEETING_NAME];
    if (!find_name(target, name))
        return 0;
    char(*more)[FL_MEETING_NAME] = realloc(held->name, (held->count + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    held->name = more;
    memcpy(held->name[held->count++], name, sizeof(name));
    return 0;
}

// --- what there is ---

static bool is_named(const struct fl_left_meeting *left, const char *name)
{
    char own[FL_MEETING_NAME];
    return find_name(left->path, own) && strcmp(own, name) == 0;
}

static bool has_name(const struct fl_diagnosis *found, const char *name)
{
    for (size_t i = 0; i < found->left_count; i++) {
        if (is_named(&found->left[i], name))
            return true;
    }
    return false;
}

static bool is_enough(const struct fl_diagnosis *found, pid_t pid)
{
    unsigned count = 0;
    for (size_t i = 0; i < found->left_count; i++)
        count += found->left[i].pid == pid;
    return count >= MOST;
}

static int note(struct fl_diagnosis *found, const struct fl_left_meeting *left)
{
    if (is_enough(found, left->pid))
        return 0;
    struct fl_left_meeting *more =
        realloc(found->left, (found->left_count + 1) * sizeof(*found->left));
    if (!more)
        return -ENOMEM;
    found->left = more;
    found->left[found->left_count++] = *left;
    return 0;
}

// "NUMBER 0xARGUMENT...": where the path of an open() is; 0: it is another call.
static uint64_t path_of_call(const char *text)
{
    char *rest = NULL;
    long number = strtol(text, &rest, 10);
    unsigned skipped = number == SYS_openat || number == SYS_openat2;
#ifdef SYS_open
    if (number != SYS_open && !skipped)
        return 0;
#else
    if (!skipped)
        return 0;
#endif
    uint64_t argument = strtoull(rest, &rest, 16);
    return skipped ? strtoull(rest, &rest, 16) : argument;
}

static bool read_path(pid_t pid, const char *task_path, char *path, size_t size)
{
    char name[PATH];
    char text[CALL];
    snprintf(name, sizeof(name), "%s/syscall", task_path);
    uint64_t at = fl_proc_read(name, text, sizeof(text)) > 0 ? path_of_call(text) : 0;
    snprintf(name, sizeof(name), "/proc/%d/mem", (int)pid);
    int fd = at ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    ssize_t got = pread(fd, path, size - 1, (off_t)at);
    close(fd);
    path[got > 0 ? got : 0] = '\0';
    return got > 0 && strlen(path) < (size_t)got;
}

bool fl_doctor_path_is_plain(const char *path)
{
    while (*path >= ' ' && *path <= '~' && *path != '\'' && *path != '\\')
        path++;
    return *path == '\0';
}

int fl_doctor_note_waiter(struct fl_diagnosis *found, pid_t pid, const char *task_path,
                          const char *wchan)
{
    char name[FL_MEETING_NAME];
    struct fl_left_meeting left = {.pid = pid, .waits = true};
    if (strcmp(wchan, "wait_for_partner") != 0 && strcmp(wchan, "fifo_open") != 0)
        return 0;
    if (!read_path(pid, task_path, left.path, sizeof(left.path)) ||
        !fl_doctor_path_is_plain(left.path) || !find_name(left.path, name))
        return 0;
    char *fifo = strstr(left.path, name) + strlen(name);
    if (strcmp(fifo, FIFO) != 0)
        return 0;
    *fifo = '\0';
    fl_proc_name(pid, left.name, sizeof(left.name));
    return note(found, &left);
}

// --- directories ---

static int look_into(struct fl_diagnosis *found, pid_t pid, const char *root, const char *usual)
{
    char path[PATH];
    char name[FL_MEETING_NAME];
    const struct dirent *entry;
    int error = 0;
    snprintf(path, sizeof(path), "%s%s", root, usual);
    DIR *directory = opendir(path);
    while (directory && !error && (entry = readdir(directory))) {
        struct fl_left_meeting left = {.pid = pid};
        if (!find_name(entry->d_name, name) || strcmp(entry->d_name, name) != 0 ||
            has_name(found, name))
            continue;
        snprintf(left.path, sizeof(left.path), "%s/%s", usual[1] ? usual : "", name);
        if (pid)
            fl_proc_name(pid, left.name, sizeof(left.name));
        error = note(found, &left);
        if (is_enough(found, pid))
            break;
    }
    if (directory)
        closedir(directory);
    return error;
}

static bool is_same(const char *one, const char *other)
{
    struct stat a;
    struct stat b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

// It sees the same files as we do.
static bool sees_the_same(pid_t pid, const char *root)
{
    char space[ROOT];
    snprintf(space, sizeof(space), "/proc/%d/ns/mnt", (int)pid);
    return is_same(root, "/") && is_same(space, "/proc/self/ns/mnt");
}

int fl_doctor_note_directories(struct fl_diagnosis *found, pid_t pid)
{
    static const char *const usual[] = {"/run", "/dev/shm", "/tmp", "/var/tmp", "/"};
    char root[ROOT] = "";
    int error = 0;
    if (pid)
        snprintf(root, sizeof(root), "/proc/%d/root", (int)pid);
    if (pid && sees_the_same(pid, root))
        return 0;
    for (unsigned i = 0; i < sizeof(usual) / sizeof(usual[0]) && !error; i++)
        error = look_into(found, pid, root, usual[i]);
    return error;
}

// --- what is none ---

static void leave_out(struct fl_diagnosis *found, size_t at)
{
    found->left_count--;
    memmove(&found->left[at], &found->left[at + 1],
            (found->left_count - at) * sizeof(*found->left));
}

static bool is_held(const struct fl_held_meetings *held, const struct fl_left_meeting *left)
{
    for (size_t i = 0; i < held->count; i++) {
        if (is_named(left, held->name[i]))
            return true;
    }
    return false;
}

void fl_doctor_leave_out_held(struct fl_diagnosis *found, struct fl_held_meetings *held)
{
    for (size_t i = found->left_count; i-- > 0;) {
        if (is_held(held, &found->left[i]))
            leave_out(found, i);
    }
    free(held->name);
    *held = (struct fl_held_meetings){0};
}

void fl_doctor_leave_out_new(const struct fl_diagnosis *first, struct fl_diagnosis *found)
{
    char name[FL_MEETING_NAME];
    for (size_t i = found->left_count; i-- > 0;) {
        if (find_name(found->left[i].path, name) && !has_name(first, name))
            leave_out(found, i);
    }
}
