// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor/diagnosis.h"

#include <stdlib.h>
#include <string.h>

bool fl_doctor_may_wait(const struct fl_waiting_task *task, const struct fl_uffd_case *uffd)
{
    if (task->vm != 0)
        return task->vm == uffd->vm;
    if (task->kernel && strstr(task->stack, "async_pf_execute") && uffd->vm != 0 && !uffd->kvm)
        return false; // it works for a KVM guest
    return fl_uffd_case_faults(uffd) > uffd->answered + uffd->still;
}

bool fl_doctor_is_served(const struct fl_uffd_case *uffd)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        if (uffd->holder[i].pid != uffd->vm)
            return true;
    }
    return false;
}

bool fl_doctor_is_stopped(const struct fl_uffd_case *uffd, const struct fl_uffd_holder *holder)
{
    return holder->stopped && uffd->vm != 0 && holder->pid != uffd->vm;
}

bool fl_doctor_fuse_is_served(const struct fl_fuse_case *fuse)
{
    for (size_t i = 0; i < fuse->holders; i++) {
        if (fuse->holder[i].pid != 1 && !fuse->holder[i].stopped)
            return true;
    }
    return false;
}

void fl_diagnosis_free(struct fl_diagnosis *diagnosis)
{
    for (size_t i = 0; i < diagnosis->cases; i++)
        free(diagnosis->uffd[i].holder);
    for (size_t i = 0; i < diagnosis->fuses; i++)
        free(diagnosis->fuse[i].holder);
    free(diagnosis->fuse);
    free(diagnosis->fuse_task);
    free(diagnosis->uffd);
    free(diagnosis->task);
    free(diagnosis->dying);
    free(diagnosis->left);
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
