// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_fuse.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/verbs/doctor_advice.h"

// What is done about a connection depends on who holds it.
enum chief {
    CHIEF_NONE,    // nobody that we know
    CHIEF_STOPPED, // it would answer if it ran
    CHIEF_ENGINE,  // an engine of Faultline, whose keeper holds it as well
    CHIEF_SYSTEMD, // it keeps it for a service that does not run
    CHIEF_OTHER,
};

static bool is_child(const struct fl_fuse_case *fuse, const struct fl_uffd_holder *holder)
{
    for (size_t i = 0; i < fuse->holders; i++) {
        if (fuse->holder[i].pid == holder->parent && holder->parent != 1)
            return true;
    }
    return false;
}

static enum chief kind_of(const struct fl_fuse_case *fuse, const struct fl_uffd_holder *holder)
{
    if (holder->stopped)
        return CHIEF_STOPPED;
    if (holder->pid == 1)
        return CHIEF_SYSTEMD;
    return fuse->ours && is_child(fuse, holder) ? CHIEF_ENGINE : CHIEF_OTHER;
}

static enum chief find_chief(const struct fl_fuse_case *fuse, pid_t *ret_pid)
{
    static const enum chief order[] = {CHIEF_STOPPED, CHIEF_ENGINE, CHIEF_OTHER, CHIEF_SYSTEMD};
    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        for (size_t j = 0; j < fuse->holders; j++) {
            *ret_pid = fuse->holder[j].pid;
            if (kind_of(fuse, &fuse->holder[j]) == order[i])
                return order[i];
        }
    }
    *ret_pid = 0;
    return CHIEF_NONE;
}

static bool has_stopped(const struct fl_fuse_case *fuse)
{
    pid_t pid = 0;
    return fuse->ours && find_chief(fuse, &pid) == CHIEF_STOPPED;
}

static const char *explain(const struct fl_fuse_case *fuse)
{
    pid_t pid = 0;
    enum chief chief = find_chief(fuse, &pid);
    if (fuse->verdict == FL_VERDICT_OK)
        return has_stopped(fuse) ? "a process that serves or keeps it is stopped, by a signal or a "
                                   "debugger: the next page that is not cached waits for it"
                                 : "no task waits too long";
    if (fuse->verdict == FL_VERDICT_UNKNOWN && fuse->tasks == 0)
        return "a task waits, and it is not known whether for this one";
    switch (chief) {
    case CHIEF_STOPPED:
        return "a process that serves or keeps it is stopped, by a signal or a debugger";
    case CHIEF_ENGINE:
        return "the engine of Faultline that serves it does not answer; once that is gone, its "
               "keeper lets another one go on";
    case CHIEF_SYSTEMD:
        return "its server is gone, and systemd keeps it for the next start of the service";
    case CHIEF_OTHER:
        return "the process that serves it does not answer";
    case CHIEF_NONE:
        break;
    }
    return fuse->ours ? "no process serves it: a task that waits for it waits for ever"
                      : "its server, which this kernel does not name, does not answer";
}

static void continue_all(const struct fl_fuse_case *fuse, struct doctor_mend *mend)
{
    size_t used = 0;
    for (size_t i = 0; i < fuse->holders && used < sizeof(mend->command); i++) {
        const struct fl_uffd_holder *holder = &fuse->holder[i];
        if (holder->stopped && holder->tracer == 0)
            used += (size_t)snprintf(mend->command + used, sizeof(mend->command) - used,
                                     used ? " %d" : "kill -CONT %d", (int)holder->pid);
    }
}

static void make_mend(const struct fl_fuse_case *fuse, struct doctor_mend *mend)
{
    static const char lost[] = "its server cannot be brought back: each thread that waits gets "
                               "SIGBUS or an error, and no more of it can be read";
    pid_t pid = 0;
    enum chief chief = find_chief(fuse, &pid);
    *mend = (struct doctor_mend){0};
    if (has_stopped(fuse))
        continue_all(fuse, mend);
    if (fuse->verdict == FL_VERDICT_OK || *mend->command)
        return;
    if (chief == CHIEF_STOPPED) {
        continue_all(fuse, mend);
    } else if (chief == CHIEF_ENGINE) {
        snprintf(mend->command, sizeof(mend->command), "kill -KILL %d", (int)pid);
    } else if (chief == CHIEF_SYSTEMD) {
        snprintf(mend->command, sizeof(mend->command), "systemctl start faultline");
    } else if (fuse->verdict != FL_VERDICT_UNKNOWN || fuse->tasks > 0) {
        snprintf(mend->command, sizeof(mend->command), "faultline rescue --abort %u",
                 fuse->connection);
        mend->only_if = chief == CHIEF_NONE && fuse->ours ? NULL : lost;
    }
}

// --- text ---

static void print_wait(int64_t ms)
{
    if (ms >= 0)
        printf(" for %.1f s", (double)ms / 1000);
}

static void print_case(const struct fl_fuse_case *fuse)
{
    struct doctor_mend mend;
    printf("FUSE connection %u: %s: %s\n", fuse->connection, fl_verdict_name(fuse->verdict),
           explain(fuse));
    if (*fuse->type)
        printf("  files at    %s (%s)\n", fuse->path, fuse->type);
    for (size_t i = 0; i < fuse->holders; i++)
        printf("%s %s (pid %d, fd %d%s)%s", i == 0 ? "  held by    " : "", fuse->holder[i].name,
               (int)fuse->holder[i].pid, fuse->holder[i].fd,
               fuse->holder[i].stopped ? ", stopped" : "", i + 1 < fuse->holders ? "," : "\n");
    if (fuse->waiting >= 0)
        printf("  requests    %d without an answer; %zu task%s wait%s", fuse->waiting, fuse->tasks,
               cli_s(fuse->tasks), fuse->tasks == 1 ? "s" : "");
    else
        printf("  requests    not known, as fusectl is not mounted; %zu task%s wait%s", fuse->tasks,
               cli_s(fuse->tasks), fuse->tasks == 1 ? "s" : "");
    print_wait(fuse->waiting_ms);
    putchar('\n');
    make_mend(fuse, &mend);
    if (*mend.command)
        printf("  to mend     %s\n", mend.command);
    if (mend.only_if)
        printf("  only if     %s\n", mend.only_if);
}

static void print_task(const struct fl_waiting_task *task)
{
    printf("task %d of pid %d (%s), state %c, waits for ", (int)task->tid, (int)task->pid,
           task->name, task->state);
    if (task->connection)
        printf("FUSE connection %u", task->connection);
    else
        printf("one of several FUSE connections");
    print_wait(task->waiting_ms);
    printf("\n%s%s%s", *task->stack ? "  in          " : "", task->stack, *task->stack ? "\n" : "");
}

void doctor_print_fuse(const struct fl_diagnosis *found, int64_t patience_ms, bool all)
{
    for (size_t i = 0; i < found->fuses; i++) {
        if (all || found->fuse[i].verdict != FL_VERDICT_OK || has_stopped(&found->fuse[i]))
            print_case(&found->fuse[i]);
    }
    for (size_t i = 0; i < found->fuse_tasks; i++) {
        const struct fl_waiting_task *task = &found->fuse_task[i];
        if (all || (!task->moved && (task->waiting_ms < 0 || task->waiting_ms >= patience_ms)))
            print_task(task);
    }
}

// --- JSON ---

// Null if it is no text.
static json_t *path_json(const struct fl_fuse_case *fuse)
{
    json_t *path = json_string(fuse->path);
    return path ? path : json_null();
}

static json_t *case_json(const struct fl_fuse_case *fuse)
{
    struct doctor_mend mend;
    json_t *holders = json_array();
    for (size_t i = 0; i < fuse->holders; i++)
        json_array_append_new(holders,
                              json_pack("{s:i, s:i, s:s, s:b}", "pid", (int)fuse->holder[i].pid,
                                        "fd", fuse->holder[i].fd, "name", fuse->holder[i].name,
                                        "stopped", (int)fuse->holder[i].stopped));
    make_mend(fuse, &mend);
    return json_pack("{s:I, s:s, s:s, s:s, s:o, s:b, s:o, s:i, s:I, s:I, s:s, s:s}", "connection",
                     (json_int_t)fuse->connection, "verdict", fl_verdict_name(fuse->verdict),
                     "reason", explain(fuse), "type", fuse->type, "path", path_json(fuse), "ours",
                     (int)fuse->ours, "holders", holders, "requests", fuse->waiting, "tasks",
                     (json_int_t)fuse->tasks, "waiting_ms", (json_int_t)fuse->waiting_ms, "mend",
                     mend.command, "mend_only_if", mend.only_if ? mend.only_if : "");
}

json_t *doctor_fuse_json(const struct fl_diagnosis *found)
{
    json_t *list = json_array();
    for (size_t i = 0; i < found->fuses; i++)
        json_array_append_new(list, case_json(&found->fuse[i]));
    return list;
}

json_t *doctor_fuse_tasks_json(const struct fl_diagnosis *found)
{
    json_t *list = json_array();
    for (size_t i = 0; i < found->fuse_tasks; i++) {
        const struct fl_waiting_task *task = &found->fuse_task[i];
        json_array_append_new(
            list, json_pack("{s:i, s:i, s:s, s:s%, s:I, s:s, s:I}", "pid", (int)task->pid, "tid",
                            (int)task->tid, "name", task->name, "state", &task->state, (size_t)1,
                            "waiting_ms", (json_int_t)task->waiting_ms, "stack", task->stack,
                            "connection", (json_int_t)task->connection));
    }
    return list;
}
