// SPDX-License-Identifier: Apache-2.0
#include "engine/host/procfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/utf8.h"

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
    fl_utf8_clean(buf); // the process has chosen it, and it goes to a terminal and into JSON
}

// --- tasks ---

// include/linux/sched.h: not part of the kernel's promises, but unchanged since there is git.
enum { KERNEL_EXITING = 0x4, KERNEL_THREAD = 0x200000 };

int fl_proc_task(const char *task_path, struct fl_proc_task *ret_task)
{
    char path[96];
    char text[1024];
    char state = 0;
    int parent = 0;
    unsigned flags = 0;
    unsigned long long started = 0;
    snprintf(path, sizeof(path), "%s/stat", task_path);
    ssize_t got = fl_proc_read(path, text, sizeof(text));
    if (got <= 0)
        return got < 0 ? (int)got : -ESRCH;
    const char *name_end = strrchr(text, ')'); // the name may hold anything, also ")"
    // After the name: state, parent, group, session, terminal and its group, flags; faults and
    // times (8), priority, nice, threads, 0, start time. NOLINTNEXTLINE(cert-err34-c): the kernel's
    // own numbers
    if (!name_end || sscanf(name_end + 1,
                            " %c %d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                            "%*d %*d %llu",
                            &state, &parent, &flags, &started) != 4)
        return -EPROTO;
    *ret_task =
        (struct fl_proc_task){.parent = parent,
                              .state = state,
                              .kernel = flags & KERNEL_THREAD,
                              .exiting = flags & KERNEL_EXITING || state == 'Z' || state == 'X',
                              .started = started};
    return 0;
}

bool fl_proc_switches(const char *task_path, uint64_t *ret_switches)
{
    char path[96];
    char text[4096];
    uint64_t voluntary = 0;
    uint64_t others = 0;
    snprintf(path, sizeof(path), "%s/status", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0 ||
        !fl_proc_number(text, "\nvoluntary_ctxt_switches:", &voluntary) ||
        !fl_proc_number(text, "\nnonvoluntary_ctxt_switches:", &others))
        return false;
    *ret_switches = voluntary + others;
    return true;
}

pid_t fl_proc_tracer(pid_t pid)
{
    char path[64];
    char text[4096];
    uint64_t tracer = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (fl_proc_read(path, text, sizeof(text)) <= 0 ||
        !fl_proc_number(text, "\nTracerPid:", &tracer))
        return 0;
    return (pid_t)tracer;
}

// --- namespaces ---

// include/uapi/linux/nsfs.h (Linux 6.18) and include/linux/proc_ns.h before: the inode number of
// the host's own PID namespace.
#define HOST_PID_NAMESPACE 0xEFFFFFFCU

enum fl_proc_view fl_proc_view(void)
{
    char self[32];
    struct stat own;
    if (fl_proc_link("/proc/self", self, sizeof(self)) != 0 ||
        strtol(self, NULL, 10) != (long)getpid() || stat("/proc/self/ns/pid", &own) != 0)
        return FL_PROC_OTHER;
    return own.st_ino == HOST_PID_NAMESPACE ? FL_PROC_ALL : FL_PROC_PART;
}

struct live_task {
    pid_t pid;
    pid_t found;
};

// "FDSize:" is 0 once the descriptors are gone, "VmSize:" is missing once the memory is.
static int look_if_live(void *arg, int tid)
{
    struct live_task *live = arg;
    char path[64];
    char text[4096];
    uint64_t descriptors = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)live->pid, tid);
    if (fl_proc_read(path, text, sizeof(text)) <= 0 || !strstr(text, "\nVmSize:") ||
        !fl_proc_number(text, "\nFDSize:", &descriptors) || descriptors == 0)
        return 0;
    live->found = tid;
    return 1;
}

int fl_proc_live_task(pid_t pid, pid_t *ret_tid)
{
    char path[64];
    struct live_task live = {.pid = pid};
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    int result = look_if_live(&live, pid);
    if (result == 0)
        result = fl_proc_each(path, look_if_live, &live);
    if (result <= 0)
        return -ESRCH;
    *ret_tid = live.found;
    return 0;
}

// SIGKILL is pending for each thread until the thread acts on it, and then the thread is exiting.
// `unseen`: what it is if that cannot be read.
static bool is_killed(const char *task_path, bool unseen)
{
    char path[64];
    char text[4096];
    struct fl_proc_task task;
    if (fl_proc_task(task_path, &task) != 0)
        return unseen;
    snprintf(path, sizeof(path), "%s/status", task_path);
    if (!task.exiting && fl_proc_read(path, text, sizeof(text)) <= 0)
        return unseen;
    const char *pending = task.exiting ? NULL : strstr(text, "\nSigPnd:");
    return task.exiting || (pending && strtoull(pending + 8, NULL, 16) >> (SIGKILL - 1) & 1);
}

bool fl_proc_is_killed(pid_t tid)
{
    char path[48];
    snprintf(path, sizeof(path), "/proc/%d", (int)tid);
    return tid > 0 && is_killed(path, false);
}

bool fl_proc_is_ending(pid_t pid)
{
    char path[48];
    pid_t tid = 0;
    if (fl_proc_live_task(pid, &tid) != 0)
        return true;
    snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)pid, (int)tid);
    return is_killed(path, true);
}

// --- memory ---

// One line of smaps. True when it ends a mapping (VmFlags is the last of its lines) that is
// registered; the mapping is in *range then.
static bool take_line(struct fl_proc_range *range, const char *line)
{
    char *rest = NULL;
    uint64_t kib = 0;
    if (strncmp(line, "VmFlags:", 8) == 0) {
        range->shared = strstr(line, " sh") != NULL;
        range->unreserved = strstr(line, " nr") != NULL;
        return strstr(line, " um") != NULL;
    }
    if (fl_proc_number(line, "KernelPageSize:", &kib))
        range->page_bytes = kib << 10;
    if (fl_proc_number(line, "THPeligible:", &kib))
        range->transparent = kib != 0;
    uint64_t start = strtoull(line, &rest, 16);
    if (*rest != '-' || rest == line)
        return false;
    unsigned long long inode = 0;
    *range = (struct fl_proc_range){.start = start};
    range->bytes = strtoull(rest + 1, &rest, 16) - start;
    range->file =
        sscanf(rest, " %*s %*s %*s %llu", &inode) == 1 && inode != 0; // NOLINT(cert-err34-c)
    return false;
}

static FILE *open_memory(pid_t pid, const char *name)
{
    char path[96];
    pid_t tid = pid;
    fl_proc_live_task(pid, &tid);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)pid, (int)tid, name);
    return fopen(path, "re");
}

int fl_proc_each_registered(pid_t pid, int (*fn)(void *arg, const struct fl_proc_range *range),
                            void *arg)
{
    char *line = NULL;
    size_t room = 0;
    struct fl_proc_range range = {0};
    FILE *file = open_memory(pid, "smaps");
    int result = file ? 0 : -errno;
    while (file && result == 0 && getline(&line, &room, file) > 0) {
        if (take_line(&range, line))
            result = fn(arg, &range);
    }
    free(line);
    if (file)
        fclose(file);
    return result;
}

static int one_is_enough(void *arg, const struct fl_proc_range *range)
{
    (void)arg;
    (void)range;
    return 1;
}

bool fl_proc_has_uffd_memory(pid_t pid)
{
    return fl_proc_each_registered(pid, one_is_enough, NULL) == 1;
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
