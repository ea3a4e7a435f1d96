// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor/doctor_compare.h"

#include "engine/doctor/doctor_fuse.h"

static const struct fl_uffd_case *find_case(const struct fl_diagnosis *found, uint64_t inode)
{
    for (size_t i = 0; i < found->cases; i++) {
        if (found->uffd[i].inode == inode)
            return &found->uffd[i];
    }
    return NULL;
}

static const struct fl_waiting_task *find_among(const struct fl_waiting_task *tasks, size_t count,
                                                const struct fl_waiting_task *task)
{
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].tid == task->tid && tasks[i].started == task->started)
            return &tasks[i];
    }
    return NULL;
}

static const struct fl_waiting_task *find_task(const struct fl_diagnosis *found,
                                               const struct fl_waiting_task *task)
{
    return find_among(found->task, found->tasks, task);
}

bool fl_doctor_has_no_handler(const struct fl_diagnosis *found, const struct fl_waiting_task *task)
{
    bool any = false;
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        if (uffd->vm == 0 || uffd->vm != task->vm)
            continue;
        if (fl_doctor_is_served(uffd) || fl_uffd_case_faults(uffd) == 0)
            return false;
        any = true;
    }
    return any;
}

static void compare_task(const struct fl_diagnosis *first, const struct fl_diagnosis *second,
                         struct fl_waiting_task *task, int64_t elapsed_ms)
{
    const struct fl_waiting_task *before = find_task(first, task);
    bool no_handler =
        before && fl_doctor_has_no_handler(first, before) && fl_doctor_has_no_handler(second, task);
    bool same = before && !before->moved && !task->moved && before->switches == task->switches;
    task->moved = !same && !no_handler;
    if (!task->moved && task->waiting_ms < elapsed_ms && (task->waiting_ms < 0 || !same))
        task->waiting_ms = elapsed_ms;
}

// A server may have answered it in between, however few wait for it.
static void compare_fuse_task(const struct fl_diagnosis *first, struct fl_waiting_task *task,
                              int64_t elapsed_ms)
{
    const struct fl_waiting_task *before = find_among(first->fuse_task, first->fuse_tasks, task);
    task->moved = !before || before->moved || task->moved || before->switches != task->switches;
    if (!task->moved && task->waiting_ms < elapsed_ms)
        task->waiting_ms = elapsed_ms;
}

static void compare_holders(const struct fl_uffd_case *before, struct fl_uffd_case *uffd)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        bool was = false;
        for (size_t j = 0; before && j < before->holders; j++)
            was =
                was || (before->holder[j].pid == uffd->holder[i].pid && before->holder[j].stopped);
        uffd->holder[i].stopped = uffd->holder[i].stopped && was;
    }
}

void fl_doctor_compare(const struct fl_diagnosis *first, struct fl_diagnosis *second,
                       int64_t elapsed_ms)
{
    for (size_t i = 0; i < second->cases; i++)
        compare_holders(find_case(first, second->uffd[i].inode), &second->uffd[i]);
    for (size_t i = 0; i < second->tasks; i++)
        compare_task(first, second, &second->task[i], elapsed_ms);
    for (size_t i = 0; i < second->fuse_tasks; i++)
        compare_fuse_task(first, &second->fuse_task[i], elapsed_ms);
    fl_doctor_fuse_compare(first, second);
}

bool fl_doctor_must_watch(const struct fl_diagnosis *first, const struct fl_diagnosis *second,
                          int64_t patience_ms)
{
    for (size_t i = 0; i < second->tasks; i++) {
        const struct fl_waiting_task *task = &second->task[i];
        const struct fl_waiting_task *before = find_task(first, task);
        bool unknown =
            before && (before->waiting_ms < 0 || (before->switches != task->switches &&
                                                  fl_doctor_has_no_handler(second, task)));
        if (!task->moved && unknown && task->waiting_ms < patience_ms)
            return true;
    }
    for (size_t i = 0; i < second->fuse_tasks; i++) {
        const struct fl_waiting_task *task = &second->fuse_task[i];
        const struct fl_waiting_task *before =
            find_among(first->fuse_task, first->fuse_tasks, task);
        if (!task->moved && before && before->waiting_ms < 0 && task->waiting_ms < patience_ms)
            return true;
    }
    return false;
}
