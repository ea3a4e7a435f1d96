// SPDX-License-Identifier: Apache-2.0
#include "tools/doctor_advice.h"

#include <stdio.h>
#include <string.h>

// Where a holder that is not the VM stands.
enum holder {
    HOLDER_NONE,
    HOLDER_STOPPED, // it would answer if it ran
    HOLDER_ENGINE,  // of Faultline, and its keeper holds it as well
    HOLDER_SYSTEMD, // keeps it for a service that does not run
    HOLDER_OTHER,
};

static bool is_faultline(const struct fl_uffd_holder *holder)
{
    return strncmp(holder->name, "faultline", 9) == 0;
}

static bool has_parent_among(const struct fl_uffd_case *uffd, const struct fl_uffd_holder *holder)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        if (uffd->holder[i].pid == holder->parent && is_faultline(&uffd->holder[i]))
            return true;
    }
    return false;
}

static enum holder kind_of(const struct fl_uffd_case *uffd, const struct fl_uffd_holder *holder)
{
    if (holder->pid == uffd->vm)
        return HOLDER_NONE;
    if (holder->stopped)
        return HOLDER_STOPPED;
    if (is_faultline(holder) && has_parent_among(uffd, holder))
        return HOLDER_ENGINE;
    return holder->pid == 1 ? HOLDER_SYSTEMD : HOLDER_OTHER;
}

// The holder of whom most can be said.
static const struct fl_uffd_holder *chief_holder(const struct fl_uffd_case *uffd,
                                                 enum holder *ret_kind)
{
    static const enum holder order[] = {HOLDER_STOPPED, HOLDER_ENGINE, HOLDER_OTHER,
                                        HOLDER_SYSTEMD};
    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        for (size_t j = 0; j < uffd->holders; j++) {
            *ret_kind = kind_of(uffd, &uffd->holder[j]);
            if (*ret_kind == order[i])
                return &uffd->holder[j];
        }
    }
    *ret_kind = HOLDER_NONE;
    return NULL;
}

static size_t held_by(const struct fl_diagnosis *found, pid_t pid)
{
    size_t count = 0;
    for (size_t i = 0; i < found->cases; i++) {
        bool holds = false;
        for (size_t j = 0; j < found->uffd[i].holders; j++)
            holds = holds || found->uffd[i].holder[j].pid == pid;
        count += holds;
    }
    return count;
}

// `faultline rescue` of the VM, with what is known of it. NAME is left to whoever knows the image.
static void rescue_command(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                           bool force, char *buf, size_t size)
{
    char fd[32] = "";
    if (held_by(found, uffd->vm) > 1)
        snprintf(fd, sizeof(fd), " --fd %d", uffd->vm_fd);
    snprintf(buf, size, "faultline rescue%s --image %s%s %d", force ? " --force" : "",
             *uffd->image ? uffd->image : "NAME", fd, (int)uffd->vm);
}

static void mend_stuck(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd, char *buf,
                       size_t size)
{
    enum holder kind = HOLDER_NONE;
    char rescue[DOCTOR_COMMAND / 2];
    const struct fl_uffd_holder *holder = chief_holder(uffd, &kind);
    if (kind == HOLDER_STOPPED)
        snprintf(buf, size, "kill -CONT %d", (int)holder->pid);
    else if (kind == HOLDER_ENGINE) // its keeper has another one go on
        snprintf(buf, size, "kill -KILL %d", (int)holder->pid);
    else if (kind == HOLDER_SYSTEMD)
        snprintf(buf, size, "systemctl start faultline");
    if (kind != HOLDER_OTHER)
        return;
    // One that serves others as well is not to be killed for this one.
    bool alone = held_by(found, holder->pid) == 1;
    if (uffd->vm_fd < 0) {
        snprintf(buf, size, "kill -KILL %d", (int)uffd->vm);
        return;
    }
    rescue_command(found, uffd, !alone, rescue, sizeof(rescue));
    if (alone)
        snprintf(buf, size, "kill -KILL %d; %s", (int)holder->pid, rescue);
    else
        snprintf(buf, size, "%s", rescue);
}

void doctor_mend(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd, char *buf,
                 size_t size)
{
    buf[0] = '\0';
    if (uffd->verdict == FL_VERDICT_ORPHAN)
        rescue_command(found, uffd, false, buf, size);
    else if (uffd->verdict == FL_VERDICT_STUCK)
        mend_stuck(found, uffd, buf, size);
    else if (uffd->verdict == FL_VERDICT_UNKNOWN && found->dyings > 0 && uffd->holders > 0)
        snprintf(buf, size, "faultline rescue --poison --force --fd %d %d", uffd->holder[0].fd,
                 (int)uffd->holder[0].pid);
}

static const char *explain_stuck(const struct fl_uffd_case *uffd)
{
    enum holder kind = HOLDER_NONE;
    chief_holder(uffd, &kind);
    switch (kind) {
    case HOLDER_STOPPED:
        return "its handler is stopped, by a signal or a debugger";
    case HOLDER_ENGINE:
        return "the engine of Faultline that serves it does not answer; its keeper has another go "
               "on once it is gone";
    case HOLDER_SYSTEMD:
        return "its handler is gone, and systemd keeps it for the service's next start";
    case HOLDER_NONE:
    case HOLDER_OTHER:
        break;
    }
    return "its handler does not answer";
}

const char *doctor_explain(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd)
{
    switch (uffd->verdict) {
    case FL_VERDICT_STUCK:
        return explain_stuck(uffd);
    case FL_VERDICT_ORPHAN:
        return "its handler is gone: nobody but the VM holds its userfaultfd, and it waits for "
               "ever";
    case FL_VERDICT_UNKNOWN:
        return found->dyings > 0
                   ? "somebody waits, but none of the holders owns the memory: it may be that of a "
                     "process below that cannot end"
                   : "somebody waits, but none of the holders is known to own the memory";
    case FL_VERDICT_OK:
        break;
    }
    return "nobody waits for long";
}

void doctor_whose(const struct fl_diagnosis *found, const struct fl_waiting_task *task, char *buf,
                  size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    if (task->vm == task->pid)
        return;
    if (task->vm != 0) {
        snprintf(buf, size, "for pid %d", (int)task->vm);
        return;
    }
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        if (uffd->vm == 0 || !fl_doctor_may_wait(task, uffd) || used >= size)
            continue;
        int more = snprintf(buf + used, size - used, "%s%d", used ? ", " : "for one of pids ",
                            (int)uffd->vm);
        used += more > 0 ? (size_t)more : 0;
    }
    if (used == 0 && task->unexplained)
        snprintf(buf, size, "on a userfaultfd that no process holds");
}

const char doctor_unexplained[] =
    "no process holds the userfaultfd on which it waits, so that nobody can answer: if a socket's "
    "unread message or io_uring has it, that process's end frees it; else the host's next boot";
