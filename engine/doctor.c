// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/procfs.h"

enum { PATH = 96, TEXT = 4096, STACK_DEPTH = 8, BETWEEN_LOOKS_MS = 250 };

// The walk through /proc, and what it has found so far.
struct walk {
    struct fl_diagnosis found;
    pid_t pid;     // being looked at
    double now_ms; // on the clock of se.exec_start
};

// Room for one more at the end of an array; NULL if there is no memory.
static void *one_more(void *array_address, size_t *count, size_t size)
{
    void **array = array_address;
    char *more = realloc(*array, (*count + 1) * size);
    if (!more)
        return NULL;
    *array = more;
    memset(more + *count * size, 0, size);
    return more + (*count)++ * size;
}

// --- descriptors ---

static struct fl_uffd_case *find_case(struct walk *walk, uint64_t inode)
{
    for (size_t i = 0; i < walk->found.cases; i++) {
        if (walk->found.uffd[i].inode == inode)
            return &walk->found.uffd[i];
    }
    struct fl_uffd_case *new = one_more(&walk->found.uffd, &walk->found.cases, sizeof(*new));
    if (new) {
        new->inode = inode;
        new->waiting_ms = -1;
    }
    return new;
}

// fdinfo of a userfaultfd: "ino:", and "pending:" and "total:" (pending and read) of its faults.
static int take_descriptor(struct walk *walk, int fd, const char *info)
{
    uint64_t inode = 0;
    uint64_t pending = 0;
    uint64_t total = 0;
    if (!fl_proc_number(info, "ino:", &inode) || !fl_proc_number(info, "pending:", &pending) ||
        !fl_proc_number(info, "total:", &total))
        return 0;
    struct fl_uffd_case *uffd = find_case(walk, inode);
    struct fl_uffd_holder *holder =
        uffd ? one_more(&uffd->holder, &uffd->holders, sizeof(*holder)) : NULL;
    if (!holder)
        return -ENOMEM;
    uffd->pending = pending;
    uffd->unresolved = total > pending ? total - pending : 0;
    holder->pid = walk->pid;
    holder->fd = fd;
    fl_proc_name(walk->pid, holder->name, sizeof(holder->name));
    return 0;
}

static int look_at_descriptor(void *arg, int fd)
{
    struct walk *walk = arg;
    char path[PATH];
    char text[TEXT];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)walk->pid, fd);
    if (fl_proc_link(path, text, sizeof(text)) != 0 ||
        strcmp(text, "anon_inode:[userfaultfd]") != 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)walk->pid, fd);
    return fl_proc_read(path, text, sizeof(text)) > 0 ? take_descriptor(walk, fd, text) : 0;
}

// --- tasks ---

// "[<0>] name+0x1/0x2" a line; the names, innermost first.
static void read_stack(const char *task_path, char *stack, size_t size)
{
    char path[PATH];
    char text[TEXT];
    size_t used = 0;
    stack[0] = '\0';
    snprintf(path, sizeof(path), "%s/stack", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return;
    char *save = NULL;
    unsigned depth = 0;
    for (char *line = strtok_r(text, "\n", &save); line && depth < STACK_DEPTH;
         line = strtok_r(NULL, "\n", &save)) {
        char *name = strchr(line, ']');
        if (!name || used >= size)
            break;
        name += strspn(name, "] ");
        name[strcspn(name, "+")] = '\0';
        int more = snprintf(stack + used, size - used, "%s%s", depth++ ? " < " : "", name);
        used += more > 0 ? (size_t)more : 0;
    }
}

// When the task was last put on a processor, in milliseconds; negative if the kernel does not say.
static double last_ran_ms(const char *task_path)
{
    static const char key[] = "se.exec_start";
    char path[PATH];
    char text[TEXT];
    snprintf(path, sizeof(path), "%s/sched", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return -1;
    const char *at = strstr(text, key);
    if (!at)
        return -1;
    at += sizeof(key) - 1;
    return strtod(at + strspn(at, " \t:"), NULL);
}

static bool is_kernel_thread(pid_t pid)
{
    char path[PATH];
    char text[TEXT];
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    return fl_proc_read(path, text, sizeof(text)) == 0; // it has no memory, so no arguments
}

static char state_of(const char *task_path)
{
    char path[PATH];
    char text[TEXT];
    snprintf(path, sizeof(path), "%s/stat", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return '?';
    const char *name_end = strrchr(text, ')'); // the name may hold anything, also ")"
    if (!name_end || name_end[1] != ' ')
        return '?';
    return name_end[2];
}

static int take_task(struct walk *walk, pid_t tid, const char *task_path)
{
    struct fl_waiting_task *task = one_more(&walk->found.task, &walk->found.tasks, sizeof(*task));
    if (!task)
        return -ENOMEM;
    task->pid = walk->pid;
    task->tid = tid;
    task->kernel = is_kernel_thread(walk->pid);
    task->state = state_of(task_path);
    fl_proc_name(tid, task->name, sizeof(task->name));
    double ran = last_ran_ms(task_path);
    task->waiting_ms = ran < 0 || walk->now_ms < 0 ? -1
                       : walk->now_ms > ran        ? (int64_t)(walk->now_ms - ran)
                                                   : 0;
    read_stack(task_path, task->stack, sizeof(task->stack));
    walk->found.kernel_tasks += task->kernel;
    return 0;
}

static int look_at_task(void *arg, int tid)
{
    struct walk *walk = arg;
    char task_path[PATH / 2];
    char path[PATH];
    char text[TEXT];
    snprintf(task_path, sizeof(task_path), "/proc/%d/task/%d", (int)walk->pid, tid);
    snprintf(path, sizeof(path), "%s/wchan", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0 || strcmp(text, "handle_userfault") != 0)
        return 0;
    return take_task(walk, tid, task_path);
}

static int look_at_process(void *arg, int pid)
{
    struct walk *walk = arg;
    char path[PATH];
    walk->pid = pid;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    int result = fl_proc_each(path, look_at_descriptor, walk);
    if (result == -EACCES || result == -EPERM)
        walk->found.complete = false;
    if (result == -ENOMEM)
        return result;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    result = fl_proc_each(path, look_at_task, walk);
    return result == -ENOMEM ? result : 0;
}

// --- judgement ---

// The memory is that of the one holder that has any registered. A child that inherited the
// descriptor has none (unless it asked for fork events, and then it has a descriptor of its own).
static void find_vm(struct fl_uffd_case *uffd)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        const struct fl_uffd_holder *holder = &uffd->holder[i];
        if (holder->pid == uffd->vm || !fl_proc_has_uffd_memory(holder->pid))
            continue;
        if (uffd->vm != 0) { // two: cannot be told
            uffd->vm = 0;
            return;
        }
        uffd->vm = holder->pid;
        memcpy(uffd->vm_name, holder->name, sizeof(uffd->vm_name));
    }
}

static bool served_by_another(const struct fl_uffd_case *uffd)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        if (uffd->holder[i].pid != uffd->vm)
            return true;
    }
    return false;
}

static void count_tasks(const struct fl_diagnosis *found, struct fl_uffd_case *uffd)
{
    for (size_t i = 0; i < found->tasks; i++) {
        const struct fl_waiting_task *task = &found->task[i];
        if (uffd->vm == 0 || task->pid != uffd->vm || uffd->pending + uffd->unresolved == 0)
            continue;
        uffd->tasks++;
        if (task->waiting_ms > uffd->waiting_ms)
            uffd->waiting_ms = task->waiting_ms;
    }
}

// Faults that wait without a task of the VM are those of kernel workers, of which it is not known
// for whom they work: taken as old as the oldest of them.
static int64_t oldest_wait(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd)
{
    int64_t oldest = uffd->waiting_ms;
    for (size_t i = 0; i < found->tasks && uffd->pending + uffd->unresolved > uffd->tasks; i++) {
        if (found->task[i].kernel && found->task[i].waiting_ms > oldest)
            oldest = found->task[i].waiting_ms;
    }
    return oldest;
}

static void judge(const struct fl_diagnosis *found, int64_t patience_ms, struct fl_uffd_case *uffd)
{
    find_vm(uffd);
    count_tasks(found, uffd);
    uffd->waiting_ms = oldest_wait(found, uffd);
    bool waits = uffd->pending + uffd->unresolved > 0;
    bool too_long = waits && (uffd->waiting_ms < 0 || uffd->waiting_ms >= patience_ms);
    if (!too_long)
        uffd->verdict = FL_VERDICT_OK;
    else if (uffd->vm == 0)
        uffd->verdict = FL_VERDICT_UNKNOWN;
    else
        uffd->verdict = served_by_another(uffd) ? FL_VERDICT_STUCK : FL_VERDICT_ORPHAN;
}

static void sum_up(struct fl_diagnosis *found)
{
    found->healthy = true;
    for (size_t i = 0; i < found->cases; i++)
        found->healthy = found->healthy && found->uffd[i].verdict == FL_VERDICT_OK;
}

static int look_once(int64_t patience_ms, struct fl_diagnosis *ret_diagnosis)
{
    struct walk walk = {.found.complete = true};
    walk.now_ms = last_ran_ms("/proc/self");
    int result = fl_proc_each("/proc", look_at_process, &walk);
    if (result < 0) {
        fl_diagnosis_free(&walk.found);
        return result;
    }
    for (size_t i = 0; i < walk.found.cases; i++)
        judge(&walk.found, patience_ms, &walk.found.uffd[i]);
    sum_up(&walk.found);
    *ret_diagnosis = walk.found;
    return 0;
}

static bool was_bad(const struct fl_diagnosis *before, uint64_t inode)
{
    for (size_t i = 0; i < before->cases; i++) {
        if (before->uffd[i].inode == inode)
            return before->uffd[i].verdict != FL_VERDICT_OK;
    }
    return false;
}

// A walk takes time, in which VMs come, go and are served: trouble is what two walks agree on.
int fl_diagnose(int64_t patience_ms, struct fl_diagnosis *ret_diagnosis)
{
    struct fl_diagnosis first;
    struct fl_diagnosis second;
    int error = look_once(patience_ms, &first);
    if (error || first.healthy) {
        if (!error)
            *ret_diagnosis = first;
        return error;
    }
    poll(NULL, 0, BETWEEN_LOOKS_MS);
    error = look_once(patience_ms, &second);
    for (size_t i = 0; !error && i < second.cases; i++) {
        if (!was_bad(&first, second.uffd[i].inode))
            second.uffd[i].verdict = FL_VERDICT_OK;
    }
    fl_diagnosis_free(&first);
    if (error)
        return error;
    sum_up(&second);
    *ret_diagnosis = second;
    return 0;
}

void fl_diagnosis_free(struct fl_diagnosis *diagnosis)
{
    for (size_t i = 0; i < diagnosis->cases; i++)
        free(diagnosis->uffd[i].holder);
    free(diagnosis->uffd);
    free(diagnosis->task);
    *diagnosis = (struct fl_diagnosis){0};
}

const char *fl_verdict_name(enum fl_verdict verdict)
{
    switch (verdict) {
    case FL_VERDICT_OK:
        return "ok";
    case FL_VERDICT_STUCK:
        return "stuck";
    case FL_VERDICT_ORPHAN:
        return "orphan";
    case FL_VERDICT_UNKNOWN:
        break;
    }
    return "unknown";
}
