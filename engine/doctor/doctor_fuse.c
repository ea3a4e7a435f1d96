// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The kernel tells how many requests of a connection have no answer, and not
// whose they are. A task that sleeps within fs/fuse waits for one; a task that sleeps for a page
// may do so because another one has asked for it. Whose they are is told by what the process has
// mapped: the device of a mapping is the number of the connection. To read that takes a lock that a
// waiter may hold and a third task wait for, so it is read by a process of its own, which is killed
// if it does not come back.
#include "engine/doctor/doctor_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"

enum { PATH = 64, PART = 4096, PATIENCE_MS = 300, MINOR_BITS = 20 };

static struct fl_fuse_case *find(const struct fl_diagnosis *found, unsigned connection)
{
    for (size_t i = 0; i < found->fuses; i++) {
        if (found->fuse[i].connection == connection)
            return &found->fuse[i];
    }
    return NULL;
}

// --- what there is ---

static struct fl_fuse_case *note(struct fl_diagnosis *found, unsigned connection)
{
    struct fl_fuse_case *fuse = find(found, connection);
    if (fuse)
        return fuse;
    fuse = realloc(found->fuse, (found->fuses + 1) * sizeof(*fuse));
    if (!fuse)
        return NULL;
    found->fuse = fuse;
    fuse += found->fuses++;
    *fuse = (struct fl_fuse_case){
        .connection = connection, .waiting = fl_fuse_waiting(connection), .waiting_ms = -1};
    if (fuse->waiting < 0)
        fuse->waiting = -1;
    return fuse;
}

static int note_connection(void *arg, int connection)
{
    return note(arg, (unsigned)connection) ? 0 : -ENOMEM;
}

// The first is the one that was mounted; others are bind mounts.
static int note_mount(void *arg, const struct fl_fuse_mount *mount)
{
    struct fl_fuse_case *fuse = note(arg, mount->connection);
    if (!fuse)
        return -ENOMEM;
    if (*fuse->type)
        return 0;
    snprintf(fuse->type, sizeof(fuse->type), "%s", mount->type);
    snprintf(fuse->path, sizeof(fuse->path), "%s", mount->path);
    fuse->ours = strcmp(mount->type, FL_FUSE_TYPE) == 0;
    return 0;
}

int fl_doctor_fuse_find(struct fl_diagnosis *found)
{
    int error = fl_fuse_mounts_each_of_all(note_mount, found);
    if (error != -ENOMEM)
        error = fl_fuse_connections_each(note_connection, found);
    return error == -ENOMEM ? error : 0;
}

static bool is_held_by(const struct fl_fuse_case *fuse, pid_t pid)
{
    for (size_t i = 0; i < fuse->holders; i++) {
        if (fuse->holder[i].pid == pid)
            return true;
    }
    return false;
}

// What keeps the state of our files has the device, too.
int fl_doctor_fuse_note_holder(struct fl_diagnosis *found, const struct fl_proc_fd *fd,
                               const struct fl_uffd_holder *holder)
{
    unsigned connection = fl_fuse_connection_of(fd);
    struct fl_fuse_case *fuse = connection ? find(found, connection) : NULL;
    if (!fuse || is_held_by(fuse, fd->pid))
        return 0;
    struct fl_uffd_holder *more =
        realloc(fuse->holder, (fuse->holders + 1) * sizeof(*fuse->holder));
    if (!more)
        return -ENOMEM;
    fuse->holder = more;
    fuse->holder[fuse->holders++] = *holder;
    return 0;
}

// --- who waits ---

static bool is_in_fuse(const char *names)
{
    return strstr(names, "fuse_") != NULL || strstr(names, "request_wait_answer") != NULL;
}

static bool is_for_page(const char *wchan)
{
    return strstr(wchan, "folio") != NULL || strstr(wchan, "page") != NULL ||
           strstr(wchan, "io_schedule") != NULL;
}

bool fl_doctor_fuse_may_wait(const struct fl_diagnosis *found, const char *wchan)
{
    return found->fuses > 0 && (is_in_fuse(wchan) || is_for_page(wchan));
}

// "START-END MODE OFFSET MAJOR:MINOR INODE PATH": the device as the kernel has it; 0: it has none.
static unsigned device_of(const char *line)
{
    unsigned major = 0;
    unsigned minor = 0;
    if (sscanf(line, "%*s %*s %*s %x:%x", &major, &minor) != 2) // NOLINT(cert-err34-c)
        return 0;
    return major << MINOR_BITS | minor;
}

// In a process of its own. Writes the device of each mapping, once for those in a row.
static void tell_devices(pid_t pid, int to)
{
    char path[PATH];
    char line[PART];
    unsigned last = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    while (maps && fgets(line, sizeof(line), maps)) {
        unsigned device = device_of(line);
        if (device != 0 && device != last && write(to, &device, sizeof(device)) < 0)
            break;
        last = device;
    }
    _exit(0);
}

// Whether it has a mapping of this connection, for each of them.
static void read_devices(const struct fl_diagnosis *found, int from, bool *mapped)
{
    unsigned device = 0;
    struct pollfd more = {.fd = from, .events = POLLIN};
    while (poll(&more, 1, PATIENCE_MS) == 1 &&
           read(from, &device, sizeof(device)) == (ssize_t)sizeof(device)) {
        const struct fl_fuse_case *fuse = find(found, device);
        if (fuse)
            mapped[fuse - found->fuse] = true;
    }
}

static void find_mapped(const struct fl_diagnosis *found, pid_t pid, bool *mapped)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return;
    pid_t reader = fork();
    if (reader == 0)
        tell_devices(pid, ends[1]);
    close(ends[1]);
    if (reader > 0) {
        read_devices(found, ends[0], mapped);
        kill(reader, SIGKILL); // it may wait for a lock, which a signal ends
        waitpid(reader, NULL, 0);
    }
    close(ends[0]);
}

// Of those that it has mapped, or of all, the only one that has requests in hand; 0: there are
// more.
static unsigned only_waiting(const struct fl_diagnosis *found, const bool *mapped, bool any)
{
    unsigned only = 0;
    for (size_t i = 0; i < found->fuses; i++) {
        if (found->fuse[i].waiting == 0 || (any && !mapped[i]))
            continue;
        if (only != 0)
            return 0;
        only = found->fuse[i].connection;
    }
    return only;
}

static bool has_any(const struct fl_diagnosis *found, const bool *mapped)
{
    for (size_t i = 0; i < found->fuses; i++) {
        if (mapped[i] && found->fuse[i].waiting != 0)
            return true;
    }
    return false;
}

bool fl_doctor_fuse_waits(const struct fl_diagnosis *found, const char *wchan,
                          struct fl_waiting_task *task)
{
    bool *mapped = calloc(found->fuses, sizeof(*mapped));
    if (!mapped)
        return false;
    bool surely = is_in_fuse(wchan) || is_in_fuse(task->stack);
    find_mapped(found, task->pid, mapped);
    bool any = has_any(found, mapped);
    task->connection = surely || any ? only_waiting(found, mapped, any) : 0;
    free(mapped);
    return surely || any;
}

// --- what is wrong ---

static void judge(const struct fl_diagnosis *found, int64_t patience_ms, struct fl_fuse_case *fuse)
{
    fuse->tasks = 0;
    fuse->waiting_ms = -1;
    fuse->verdict = FL_VERDICT_OK;
    for (size_t i = 0; i < found->fuse_tasks; i++) {
        const struct fl_waiting_task *task = &found->fuse_task[i];
        bool own = task->connection == fuse->connection;
        fuse->tasks += own;
        if (task->moved || (!own && (task->connection != 0 || fuse->waiting == 0)))
            continue;
        if (own && task->waiting_ms > fuse->waiting_ms)
            fuse->waiting_ms = task->waiting_ms;
        if (task->waiting_ms >= 0 && task->waiting_ms < patience_ms)
            continue;
        if (!own && fuse->verdict == FL_VERDICT_OK)
            fuse->verdict = FL_VERDICT_UNKNOWN;
        else if (own)
            fuse->verdict = fl_doctor_fuse_is_served(fuse)    ? FL_VERDICT_STUCK
                            : fuse->ours || fuse->holders > 0 ? FL_VERDICT_ORPHAN
                                                              : FL_VERDICT_UNKNOWN;
    }
}

bool fl_doctor_fuse_judge(struct fl_diagnosis *found, int64_t patience_ms)
{
    bool well = true;
    for (size_t i = 0; i < found->fuses; i++) {
        struct fl_fuse_case *fuse = &found->fuse[i];
        judge(found, patience_ms, fuse);
        well = well && fuse->verdict == FL_VERDICT_OK;
        for (size_t j = 0; j < fuse->holders; j++)
            well = well && !(fuse->ours && fuse->holder[j].stopped);
    }
    return well;
}

void fl_doctor_fuse_compare(const struct fl_diagnosis *first, struct fl_diagnosis *second)
{
    for (size_t i = 0; i < second->fuses; i++) {
        struct fl_fuse_case *fuse = &second->fuse[i];
        const struct fl_fuse_case *before = find(first, fuse->connection);
        for (size_t j = 0; j < fuse->holders; j++) {
            bool was = false;
            for (size_t k = 0; before && k < before->holders; k++)
                was = was ||
                      (before->holder[k].pid == fuse->holder[j].pid && before->holder[k].stopped);
            fuse->holder[j].stopped = fuse->holder[j].stopped && was;
        }
    }
}
