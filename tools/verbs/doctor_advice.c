// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_advice.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/verbs/doctor_pool.h"

// What kind of process holds a userfaultfd.
enum holder {
    HOLDER_NONE,    // the VM itself
    HOLDER_STOPPED, // stopped; it would answer if it ran
    HOLDER_ENGINE,  // an engine of Faultline, whose keeper holds it as well
    HOLDER_SYSTEMD, // systemd, which keeps it for a service that does not run
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

// Returns the holder that the advice is about, or NULL.
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

// Asks for a lack of huge pages if the handler runs: it must not be ended then.
static enum doctor_lack lack_of(const struct fl_uffd_case *uffd,
                                const struct fl_uffd_holder *holder, enum holder kind)
{
    if (kind != HOLDER_ENGINE && kind != HOLDER_OTHER)
        return DOCTOR_LACKS_NOTHING;
    return doctor_lack(uffd->vm, holder->pid);
}

bool doctor_is_about_pool(const struct fl_uffd_case *uffd)
{
    enum holder kind = HOLDER_NONE;
    const struct fl_uffd_holder *holder = chief_holder(uffd, &kind);
    return uffd->verdict == FL_VERDICT_STUCK && lack_of(uffd, holder, kind) != DOCTOR_LACKS_NOTHING;
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

// Appends `faultline rescue` of the VM, with what is known of it. rescue itself finds out the
// image, by the pages that the VM has. It cannot find out which pages the guest gave back, unless
// that was kept.
static void rescue_command(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                           bool force, struct doctor_mend *mend)
{
    char fd[32] = "";
    char image[FL_IMAGE_NAME_BYTES + 16] = "";
    bool unknowable = uffd->removes && *uffd->image == '\0';
    size_t used = strlen(mend->command);
    if (held_by(found, uffd->vm) > 1)
        snprintf(fd, sizeof(fd), " --fd %d", uffd->vm_fd);
    if (*uffd->image)
        snprintf(image, sizeof(image), " --image %s", uffd->image);
    snprintf(mend->command + used, sizeof(mend->command) - used, "faultline rescue%s%s%s%s %d",
             force ? " --force" : "", image, unknowable ? " --nothing-removed" : "", fd,
             (int)uffd->vm);
    if (!unknowable)
        return;
    mend->only_if = "its guest has given no memory back since it was restored (no balloon)";
    snprintf(mend->otherwise, sizeof(mend->otherwise), "%.*sfaultline rescue%s --poison%s %d",
             (int)used, mend->command, force ? " --force" : "", fd, (int)uffd->vm);
}

// Writes a command that continues all stopped holders, because an engine does not go on for long
// without its keeper.
static void continue_all(const struct fl_uffd_case *uffd, char *buf, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < uffd->holders && used < size; i++) {
        const struct fl_uffd_holder *holder = &uffd->holder[i];
        if (!fl_doctor_is_stopped(uffd, holder) || holder->tracer != 0)
            continue;
        int more =
            snprintf(buf + used, size - used, used ? " %d" : "kill -CONT %d", (int)holder->pid);
        used += more > 0 ? (size_t)more : 0;
    }
}

// Advises about a handler of another kind. It must not be killed if it serves other VMs as well.
static void mend_other(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                       const struct fl_uffd_holder *holder, struct doctor_mend *mend)
{
    bool alone = held_by(found, holder->pid) == 1;
    if (uffd->vm_fd < 0) {
        snprintf(mend->command, sizeof(mend->command), "kill -KILL %d", (int)uffd->vm);
        return;
    }
    if (alone)
        snprintf(mend->command, sizeof(mend->command), "kill -KILL %d; ", (int)holder->pid);
    rescue_command(found, uffd, !alone, mend);
}

static void mend_stuck(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                       struct doctor_mend *mend)
{
    enum holder kind = HOLDER_NONE;
    const struct fl_uffd_holder *holder = chief_holder(uffd, &kind);
    enum doctor_lack lack = lack_of(uffd, holder, kind);
    if (lack != DOCTOR_LACKS_NOTHING) {
        doctor_mend_lack(lack, uffd->vm, holder->pid, mend->command, sizeof(mend->command));
        return;
    }
    switch (kind) {
    case HOLDER_STOPPED:
        continue_all(uffd, mend->command, sizeof(mend->command));
        break;
    case HOLDER_ENGINE: // its keeper lets another engine go on
        snprintf(mend->command, sizeof(mend->command), "kill -KILL %d", (int)holder->pid);
        break;
    case HOLDER_SYSTEMD:
        snprintf(mend->command, sizeof(mend->command), "systemctl start faultline");
        break;
    case HOLDER_OTHER:
        mend_other(found, uffd, holder, mend);
        break;
    case HOLDER_NONE:
        break;
    }
}

void doctor_mend(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd,
                 struct doctor_mend *ret_mend)
{
    *ret_mend = (struct doctor_mend){0};
    if (uffd->verdict == FL_VERDICT_ORPHAN)
        rescue_command(found, uffd, false, ret_mend);
    else if (uffd->verdict == FL_VERDICT_STUCK)
        mend_stuck(found, uffd, ret_mend);
    else if (uffd->verdict == FL_VERDICT_UNKNOWN && uffd->vm == 0 && found->dyings > 0 &&
             uffd->holders > 0)
        snprintf(ret_mend->command, sizeof(ret_mend->command),
                 "faultline rescue --poison --force --fd %d %d", uffd->holder[0].fd,
                 (int)uffd->holder[0].pid);
}

// --- what is stopped ---

// True if the holder is a keeper of Faultline, and its engine holds the userfaultfd as well.
static bool is_keeper(const struct fl_uffd_case *uffd, const struct fl_uffd_holder *holder)
{
    for (size_t i = 0; i < uffd->holders; i++) {
        if (uffd->holder[i].parent == holder->pid && is_faultline(&uffd->holder[i]))
            return is_faultline(holder);
    }
    return false;
}

const char *doctor_explain_stopped(const struct fl_uffd_case *uffd,
                                   const struct fl_uffd_holder *holder)
{
    if (is_keeper(uffd, holder))
        return "the keeper of Faultline: if its engine ends now, nothing starts another one, and "
               "its VMs wait for ever";
    return "it holds the userfaultfd of another process's memory: if it is the handler, that "
           "process waits for ever for the next missing page";
}

void doctor_mend_stopped(const struct fl_uffd_holder *holder, char *buf, size_t size)
{
    buf[0] = '\0';
    if (holder->tracer == 0)
        snprintf(buf, size, "kill -CONT %d", (int)holder->pid);
}

// --- what is left protected ---

void doctor_mend_protected(const struct fl_uffd_case *uffd, char *buf, size_t size)
{
    snprintf(buf, size,
             "curl -sSf --unix-socket \"${FAULTLINE_CONTROL:-/run/faultline/control.sock}\" -X "
             "DELETE -d '{\"vm\":%" PRIu64 "}' http://localhost/v1/captures",
             uffd->kept_id);
}

// --- what cannot be seen ---

const char *doctor_explain_view(const struct fl_diagnosis *found)
{
    switch (found->view) {
    case FL_PROC_PART:
        return "this is a partial view: only the processes of this PID namespace can be seen, and "
               "it is not the host's; handlers, VMs and kernel workers outside of it cannot; run "
               "this on the host";
    case FL_PROC_OTHER:
        return "/proc shows another PID namespace than this process's, where its process numbers "
               "mean other processes; run this where /proc belongs to the same namespace (nsenter "
               "--pid --mount)";
    case FL_PROC_ALL:
        break;
    }
    return NULL;
}

// --- what it means ---

static const char *explain_stuck(const struct fl_uffd_case *uffd)
{
    enum holder kind = HOLDER_NONE;
    const struct fl_uffd_holder *holder = chief_holder(uffd, &kind);
    enum doctor_lack lack = lack_of(uffd, holder, kind);
    if (lack != DOCTOR_LACKS_NOTHING)
        return doctor_explain_lack(lack);
    switch (kind) {
    case HOLDER_STOPPED:
        return "a process that serves or keeps it is stopped, by a signal or a debugger";
    case HOLDER_ENGINE:
        return "the engine of Faultline that serves it does not answer; once that is gone, its "
               "keeper lets another one go on";
    case HOLDER_SYSTEMD:
        return "its handler is gone, and systemd keeps it for the next start of the service";
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
        if (found->view != FL_PROC_ALL)
            return "its handler is gone: of the processes that can be seen, only the VM holds its "
                   "userfaultfd";
        return "its handler is gone: only the VM holds its userfaultfd, so it waits for ever";
    case FL_VERDICT_UNKNOWN:
        if (uffd->vm != 0)
            return "a task waits for this VM or for another one, and it cannot be told which";
        return found->dyings > 0
                   ? "a task waits, but none of the holders owns the memory: it may be that of a "
                     "process below that cannot end"
                   : "a task waits, but none of the holders is known to own the memory";
    case FL_VERDICT_OK:
        break;
    }
    return "no fault waits for long";
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
    "no process holds the userfaultfd on which it waits, so no process can answer: if an unread "
    "message of a socket or an io_uring has it, the end of that process frees it; otherwise only "
    "the host's next boot does";
