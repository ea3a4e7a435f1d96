// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor/doctor_judge.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/doctor/doctor_fuse.h"
#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"

// --- whose task it is ---

// "vhost-123", "kvm-pit/123": the process that a kernel thread was made for; 0: the name has none.
static pid_t pid_in_name(const char *name)
{
    size_t at = strlen(name);
    while (at > 0 && isdigit((unsigned char)name[at - 1]))
        at--;
    if (at == 0 || name[at] == '\0' || (name[at - 1] != '-' && name[at - 1] != '/'))
        return 0;
    return (pid_t)strtol(name + at, NULL, 10);
}

static bool has_userfaultfd(const struct fl_diagnosis *found, pid_t pid, bool with_faults)
{
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        if (uffd->vm == pid && (!with_faults || fl_uffd_case_faults(uffd) > 0))
            return true;
    }
    return false;
}

static bool is_dying(const struct fl_diagnosis *found, pid_t pid)
{
    for (size_t i = 0; i < found->dyings; i++) {
        if (found->dying[i].pid == pid)
            return true;
    }
    return false;
}

// A task waits in its own memory, most of the time.
static void attribute_own(struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->tasks; i++) {
        struct fl_waiting_task *task = &found->task[i];
        pid_t pid = task->kernel ? pid_in_name(task->name) : task->pid;
        if (pid != 0 && (has_userfaultfd(found, pid, false) || is_dying(found, pid)))
            task->vm = pid;
    }
}

static void count_tasks(const struct fl_diagnosis *found, struct fl_uffd_case *uffd)
{
    uffd->tasks = 0;
    uffd->still = 0;
    for (size_t i = 0; i < found->tasks; i++) {
        bool own = fl_uffd_case_faults(uffd) > 0 && uffd->vm != 0 && found->task[i].vm == uffd->vm;
        uffd->tasks += own;
        uffd->still += own && !found->task[i].moved;
    }
}

static int is_userfaultfd(void *arg, const struct fl_proc_fd *fd)
{
    struct fl_proc_uffd uffd;
    (void)arg;
    return fl_proc_uffd(fd, &uffd);
}

// It has registered memory and no userfaultfd. (One that has is of a VM that has just come.)
static bool is_absent(pid_t pid)
{
    return fl_proc_has_uffd_memory(pid) && fl_proc_each_fd(pid, is_userfaultfd, NULL) == 0;
}

// The one userfaultfd of which it is not known whose memory it is; NULL if there are more.
static struct fl_uffd_case *only_unknown(struct fl_diagnosis *found)
{
    struct fl_uffd_case *only = NULL;
    for (size_t i = 0; i < found->cases; i++) {
        if (found->uffd[i].vm != 0 || fl_uffd_case_faults(&found->uffd[i]) == 0)
            continue;
        if (only)
            return NULL;
        only = &found->uffd[i];
    }
    return only;
}

// The one process that waits and is absent; 0 if there are more, or it has more tasks that wait
// than `limit`.
static pid_t only_absent(const struct fl_diagnosis *found, uint64_t limit)
{
    pid_t only = 0;
    uint64_t tasks = 0;
    for (size_t i = 0; i < found->tasks; i++) {
        const struct fl_waiting_task *task = &found->task[i];
        tasks += task->pid == only;
        if (task->vm != 0 || task->kernel || task->pid == only || !is_absent(task->pid))
            continue;
        if (only)
            return 0;
        only = task->pid;
        tasks = 1;
    }
    return tasks <= limit ? only : 0;
}

// A VMM that has closed its userfaultfd after it gave it away.
static void find_absent_vm(struct fl_diagnosis *found)
{
    struct fl_uffd_case *uffd = only_unknown(found);
    pid_t vm = uffd ? only_absent(found, fl_uffd_case_faults(uffd)) : 0;
    if (vm == 0)
        return;
    uffd->vm = vm;
    fl_proc_name(vm, uffd->vm_name, sizeof(uffd->vm_name));
}

// Tasks whose VM nothing else tells: by what is left.
static void attribute_others(struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->tasks; i++) {
        struct fl_waiting_task *task = &found->task[i];
        const struct fl_uffd_case *only = NULL;
        size_t candidates = 0;
        if (task->vm != 0) {
            task->unexplained = !has_userfaultfd(found, task->vm, true);
            continue;
        }
        for (size_t j = 0; j < found->cases; j++) {
            if (!fl_doctor_may_wait(task, &found->uffd[j]))
                continue;
            only = &found->uffd[j];
            candidates++;
        }
        if (candidates == 1)
            task->vm = only->vm;
        else if (candidates == 0 && task->kernel && found->dyings == 1)
            task->vm = found->dying[0].pid;
        task->unexplained = candidates == 0;
    }
}

static void attribute(struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->tasks; i++)
        found->task[i].vm = 0; // what an earlier look made of it may not hold any more
    attribute_own(found);
    find_absent_vm(found);
    attribute_own(found);
    for (size_t i = 0; i < found->cases; i++)
        count_tasks(found, &found->uffd[i]);
    attribute_others(found);
}

// --- judgement ---

static bool too_long(int64_t waiting_ms, int64_t patience_ms)
{
    return waiting_ms < 0 || waiting_ms >= patience_ms;
}

// How many may have the task's fault, and whether one of them is not served: that one's, then.
static size_t candidates_of(const struct fl_diagnosis *found, const struct fl_waiting_task *task,
                            bool *ret_orphan)
{
    size_t count = 0;
    *ret_orphan = false;
    for (size_t i = 0; i < found->cases; i++) {
        if (fl_uffd_case_faults(&found->uffd[i]) == 0 || !fl_doctor_may_wait(task, &found->uffd[i]))
            continue;
        *ret_orphan = *ret_orphan || !fl_doctor_is_served(&found->uffd[i]);
        count++;
    }
    return count;
}

// A handler that works is not to be accused for a task that may wait for another one.
static enum fl_verdict verdict_for(const struct fl_diagnosis *found,
                                   const struct fl_waiting_task *task,
                                   const struct fl_uffd_case *uffd)
{
    bool orphan = false;
    if (uffd->vm == 0)
        return FL_VERDICT_UNKNOWN;
    if (!fl_doctor_is_served(uffd))
        return FL_VERDICT_ORPHAN;
    if (task->vm == uffd->vm || candidates_of(found, task, &orphan) == 1)
        return FL_VERDICT_STUCK;
    return orphan ? FL_VERDICT_OK : FL_VERDICT_UNKNOWN;
}

// The worst of what its tasks, and those that may be its own, tell.
static void judge_case(const struct fl_diagnosis *found, int64_t patience_ms,
                       struct fl_uffd_case *uffd)
{
    uffd->waiting_ms = -1;
    uffd->verdict = FL_VERDICT_OK;
    for (size_t i = 0; i < found->tasks && fl_uffd_case_faults(uffd) > 0; i++) {
        const struct fl_waiting_task *task = &found->task[i];
        if (task->moved || !fl_doctor_may_wait(task, uffd))
            continue;
        if (task->waiting_ms > uffd->waiting_ms)
            uffd->waiting_ms = task->waiting_ms;
        if (too_long(task->waiting_ms, patience_ms) &&
            (uffd->verdict == FL_VERDICT_OK || uffd->verdict == FL_VERDICT_UNKNOWN))
            uffd->verdict = verdict_for(found, task, uffd);
    }
}

static void sum_up(struct fl_diagnosis *found)
{
    found->unexplained = 0;
    found->stopped = 0;
    for (size_t i = 0; i < found->tasks; i++)
        found->unexplained += found->task[i].unexplained;
    found->healthy = found->unexplained == 0;
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        found->healthy = found->healthy && uffd->verdict == FL_VERDICT_OK;
        for (size_t j = 0; j < uffd->holders; j++)
            found->stopped += fl_doctor_is_stopped(uffd, &uffd->holder[j]);
    }
    found->healthy = found->healthy && found->stopped == 0;
    for (size_t i = 0; i < found->left_count; i++)
        found->healthy = found->healthy && !found->left[i].waits;
}

void fl_doctor_judge(struct fl_diagnosis *found, int64_t patience_ms)
{
    attribute(found);
    for (size_t i = 0; i < found->cases; i++)
        judge_case(found, patience_ms, &found->uffd[i]);
    for (size_t i = 0; i < found->tasks; i++) {
        struct fl_waiting_task *task = &found->task[i];
        task->unexplained =
            task->unexplained && !task->moved && too_long(task->waiting_ms, patience_ms);
    }
    sum_up(found);
    found->healthy = fl_doctor_fuse_judge(found, patience_ms) && found->healthy;
}
