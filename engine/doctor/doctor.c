// SPDX-License-Identifier: Apache-2.0
//
// A walk takes time, in which VMs come, go and are served: that a fault waits now and one waits a
// moment later is what a busy server looks like. Trouble is a task that has slept through two
// looks: with the same identity, and having left no processor in between (its count of context
// switches is the same), so that it is one wait. Where only the VM itself holds its userfaultfd
// nobody can have answered in between either, and each wait is one.
#include "engine/doctor/doctor.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/doctor/doctor_walk.h"
#include "engine/host/proc_fd.h"

enum { BETWEEN_LOOKS_MS = 250, GLANCES = 20, BETWEEN_GLANCES_MS = 10 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// --- what two walks agree on ---

static const struct fl_uffd_case *find_case(const struct fl_diagnosis *found, uint64_t inode)
{
    for (size_t i = 0; i < found->cases; i++) {
        if (found->uffd[i].inode == inode)
            return &found->uffd[i];
    }
    return NULL;
}

static const struct fl_waiting_task *find_task(const struct fl_diagnosis *found,
                                               const struct fl_waiting_task *task)
{
    for (size_t i = 0; i < found->tasks; i++) {
        if (found->task[i].tid == task->tid && found->task[i].started == task->started)
            return &found->task[i];
    }
    return NULL;
}

static uint64_t faults_of(const struct fl_uffd_case *uffd)
{
    return uffd->pending + uffd->unresolved;
}

// That the task belongs to a process whose faults nobody can have answered, in both walks.
static bool has_no_handler(const struct fl_diagnosis *found, const struct fl_waiting_task *task)
{
    bool any = false;
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        if (uffd->vm == 0 || uffd->vm != task->vm)
            continue;
        if (fl_doctor_is_served(uffd) || faults_of(uffd) == 0)
            return false;
        any = true;
    }
    return any;
}

static void compare_task(const struct fl_diagnosis *first, const struct fl_diagnosis *second,
                         struct fl_waiting_task *task, int64_t elapsed_ms)
{
    const struct fl_waiting_task *before = find_task(first, task);
    bool no_handler = before && has_no_handler(first, before) && has_no_handler(second, task);
    bool same = before && !before->moved && !task->moved && before->switches == task->switches;
    task->moved = !same && !no_handler;
    if (!task->moved && task->waiting_ms < elapsed_ms && (task->waiting_ms < 0 || !same))
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
}

bool fl_doctor_must_watch(const struct fl_diagnosis *first, const struct fl_diagnosis *second,
                          int64_t patience_ms)
{
    for (size_t i = 0; i < second->tasks; i++) {
        const struct fl_waiting_task *task = &second->task[i];
        const struct fl_waiting_task *before = find_task(first, task);
        bool unknown = before && (before->waiting_ms < 0 || (before->switches != task->switches &&
                                                             has_no_handler(second, task)));
        if (!task->moved && unknown && task->waiting_ms < patience_ms)
            return true;
    }
    return false;
}

// --- whose handler works ---

// A task that has waited all the time, and of which it follows from faults alone for whom.
static bool has_doubtful_task(const struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->tasks; i++) {
        if (found->task[i].vm != found->task[i].pid && !found->task[i].moved)
            return true;
    }
    return false;
}

static void glance(struct fl_uffd_case *uffd, uint64_t *least)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        pid_t tid = 0;
        struct fl_proc_uffd now;
        if (fl_proc_live_task(uffd->holder[i].pid, &tid) != 0)
            continue;
        struct fl_proc_fd fd = {.pid = uffd->holder[i].pid,
                                .tid = tid,
                                .fd = uffd->holder[i].fd,
                                .target = "anon_inode:[userfaultfd]"};
        if (!fl_proc_uffd(&fd, &now) || now.inode != uffd->inode)
            continue;
        if (now.total < *least)
            *least = now.total;
        return;
    }
}

// A fault that has waited all the time is there at each glance: what is not was answered.
static void glance_at_all(struct fl_diagnosis *found)
{
    uint64_t *least = calloc(found->cases + 1, sizeof(*least));
    for (size_t i = 0; least && i < found->cases; i++)
        least[i] = faults_of(&found->uffd[i]);
    for (int look = 0; least && look < GLANCES; look++) {
        for (size_t i = 0; i < found->cases; i++) {
            if (least[i] > 0)
                glance(&found->uffd[i], &least[i]);
        }
        poll(NULL, 0, BETWEEN_GLANCES_MS);
    }
    for (size_t i = 0; least && i < found->cases; i++)
        found->uffd[i].answered = faults_of(&found->uffd[i]) - least[i];
    free(least);
}

// --- the looks ---

static int look_first(int64_t patience_ms, struct fl_diagnosis *ret_diagnosis)
{
    int error = fl_doctor_walk(ret_diagnosis);
    if (!error)
        fl_doctor_judge(ret_diagnosis, patience_ms);
    return error;
}

// A task that signals wake, again and again, seems to have waited for a moment only.
static bool may_be_trouble(const struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->tasks; i++) {
        if (has_no_handler(found, &found->task[i]))
            return true;
    }
    return !found->healthy;
}

static int look_again(const struct fl_diagnosis *first, int64_t since_ms,
                      struct fl_diagnosis *ret_diagnosis)
{
    int64_t elapsed = now_ms() - since_ms;
    int error = fl_doctor_walk(ret_diagnosis);
    if (error)
        return error;
    fl_doctor_judge(ret_diagnosis, 0); // whose tasks are whose
    fl_doctor_compare(first, ret_diagnosis, elapsed);
    return 0;
}

int fl_diagnose(int64_t patience_ms, struct fl_diagnosis *ret_diagnosis)
{
    struct fl_diagnosis first;
    struct fl_diagnosis last = {0};
    int error = look_first(patience_ms, &first);
    int64_t since = now_ms();
    if (error || !may_be_trouble(&first)) {
        if (!error)
            *ret_diagnosis = first;
        return error;
    }
    do {
        fl_diagnosis_free(&last);
        poll(NULL, 0, BETWEEN_LOOKS_MS);
        error = look_again(&first, since, &last);
    } while (!error && fl_doctor_must_watch(&first, &last, patience_ms));
    if (!error && has_doubtful_task(&last))
        glance_at_all(&last);
    if (!error) {
        fl_doctor_judge(&last, patience_ms);
        *ret_diagnosis = last;
    }
    fl_diagnosis_free(&first);
    return error;
}

void fl_diagnosis_free(struct fl_diagnosis *diagnosis)
{
    for (size_t i = 0; i < diagnosis->cases; i++)
        free(diagnosis->uffd[i].holder);
    free(diagnosis->uffd);
    free(diagnosis->task);
    free(diagnosis->dying);
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
