// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor/doctor.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/doctor/doctor_compare.h"
#include "engine/doctor/doctor_judge.h"
#include "engine/doctor/doctor_left.h"
#include "engine/doctor/doctor_walk.h"
#include "engine/host/proc_fd.h"

enum { BETWEEN_LOOKS_MS = 250, GLANCES = 20, BETWEEN_GLANCES_MS = 10 };

static int64_t now_ms(void)
{
    return (int64_t)(fl_now() / FL_NS_PER_MS);
}

// --- whose handler works ---

// A task that has waited all the time, and whose VM follows from faults alone.
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
                                .target = FL_PROC_UFFD_TARGET};
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
        least[i] = fl_uffd_case_faults(&found->uffd[i]);
    for (int look = 0; least && look < GLANCES; look++) {
        for (size_t i = 0; i < found->cases; i++) {
            if (least[i] > 0)
                glance(&found->uffd[i], &least[i]);
        }
        poll(NULL, 0, BETWEEN_GLANCES_MS);
    }
    for (size_t i = 0; least && i < found->cases; i++)
        found->uffd[i].answered = fl_uffd_case_faults(&found->uffd[i]) - least[i];
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
        if (fl_doctor_has_no_handler(found, &found->task[i]))
            return true;
    }
    return !found->healthy || found->left_count > 0;
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
    fl_doctor_leave_out_new(first, ret_diagnosis);
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
