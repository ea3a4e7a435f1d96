// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "engine/doctor/doctor.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/doctor_advice.h"
#include "tools/verbs/doctor_fuse.h"
#include "tools/verbs/doctor_huge.h"
#include "tools/verbs/doctor_meetings.h"
#include "tools/verbs/doctor_offers.h"
#include "tools/verbs/doctor_pool.h"
#include "tools/verbs/verbs.h"

enum { POOL = 160 };

struct arguments {
    const char *store;
    uint64_t patience_ms;
    bool json;
    bool all;
};

static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_FLAG(struct arguments, all, .name = "all", .help = "also show what is well"),
    CLI_FLAG(struct arguments, json, .name = "json", .help = "print all as JSON (docs/json.md)"),
    CLI_TIME_MS(struct arguments, patience_ms, .name = "patience", .value = "TIME", .low = 0,
                .high = HOUR_MS, .preset = "1s",
                .help =
                    "how long a fault may wait; if the kernel does not tell how long a task has "
                    "waited, the doctor watches it for this time"),
    CLI_END,
};

// --- text ---

static void print_wait(int64_t ms)
{
    if (ms >= 0)
        printf(" for %.1f s", (double)ms / 1000);
}

static void print_mend(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd)
{
    struct doctor_mend mend;
    doctor_mend(found, uffd, &mend);
    if (*mend.command)
        printf("  to mend     %s\n", mend.command);
    if (mend.only_if)
        printf("  only if     %s; else:\n              %s\n", mend.only_if, mend.otherwise);
}

static void print_case(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd)
{
    printf("userfaultfd %" PRIu64 ": %s: %s\n", uffd->inode, fl_verdict_name(uffd->verdict),
           doctor_explain(found, uffd));
    if (uffd->vm != 0)
        printf("  memory of   %s (pid %d)\n", uffd->vm_name, (int)uffd->vm);
    printf("  held by    ");
    for (size_t i = 0; i < uffd->holders; i++)
        printf(" %s (pid %d, fd %d%s)%s", uffd->holder[i].name, (int)uffd->holder[i].pid,
               uffd->holder[i].fd, uffd->holder[i].stopped ? ", stopped" : "",
               i + 1 < uffd->holders ? "," : "");
    printf("\n  faults      %" PRIu64 " unread, %" PRIu64
           " read and not resolved; %zu task%s of the VM wait%s",
           uffd->pending, uffd->unresolved, uffd->tasks, cli_s(uffd->tasks),
           uffd->tasks == 1 ? "s" : "");
    print_wait(uffd->waiting_ms);
    putchar('\n');
    if (doctor_is_about_pool(uffd)) {
        char pool[POOL];
        doctor_show_pool(pool, sizeof(pool));
        printf("  lacking     %s\n", pool);
    }
    print_mend(found, uffd);
}

static void print_task(const struct fl_diagnosis *found, const struct fl_waiting_task *task)
{
    char memory[DOCTOR_WHOSE];
    doctor_whose(found, task, memory, sizeof(memory));
    printf("task %d of pid %d (%s%s), state %c, waits%s%s", (int)task->tid, (int)task->pid,
           task->name, task->kernel ? ", a kernel worker" : "", task->state, *memory ? " " : "",
           memory);
    print_wait(task->waiting_ms);
    printf("\n%s%s%s", *task->stack ? "  in          " : "", task->stack, *task->stack ? "\n" : "");
    if (task->unexplained)
        printf("  to mend     %s\n", doctor_unexplained);
}

// True if dying processes are shown: only if something waits, because many processes take a moment
// to end.
static bool shows_dying(const struct fl_diagnosis *found)
{
    return !found->healthy;
}

static void print_dying(const struct fl_waiting_task *task)
{
    printf("%s (pid %d) was killed, its memory and its descriptors are gone, but its task %d does "
           "not end: state %c",
           task->name, (int)task->pid, (int)task->tid, task->state);
    print_wait(task->waiting_ms);
    printf("\n%s%s%s", *task->stack ? "  in          " : "", task->stack, *task->stack ? "\n" : "");
}

static bool was_said(const struct fl_diagnosis *found, size_t case_index, pid_t pid)
{
    for (size_t i = 0; i < case_index; i++) {
        for (size_t j = 0; j < found->uffd[i].holders; j++) {
            if (found->uffd[i].holder[j].pid == pid)
                return true;
        }
    }
    return false;
}

static void print_stopped(const struct fl_uffd_case *uffd, const struct fl_uffd_holder *holder)
{
    char command[DOCTOR_COMMAND];
    printf("%s (pid %d) is stopped, by %s", holder->name, (int)holder->pid,
           holder->tracer ? "a debugger" : "a signal");
    if (holder->tracer)
        printf(" (pid %d)", (int)holder->tracer);
    printf(": %s\n", doctor_explain_stopped(uffd, holder));
    doctor_mend_stopped(holder, command, sizeof(command));
    if (*command)
        printf("  to mend     %s\n", command);
}

static void print_protected(const struct fl_uffd_case *uffd)
{
    char command[DOCTOR_COMMAND];
    printf("%s (pid %d), VM %" PRIu64 ": %" PRIu64
           " pages of 4 KiB are write-protected, and no capture of it runs or is kept: each costs "
           "its guest a fault when it writes\n",
           uffd->vm_name, (int)uffd->vm, uffd->kept_id, uffd->left_protected);
    doctor_mend_protected(uffd, command, sizeof(command));
    printf("  to mend     %s\n", command);
}

// Names each stopped process once, however many userfaultfds it holds.
static void print_all_stopped(const struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        for (size_t j = 0; j < uffd->holders; j++) {
            if (fl_doctor_is_stopped(uffd, &uffd->holder[j]) &&
                !was_said(found, i, uffd->holder[j].pid))
                print_stopped(uffd, &uffd->holder[j]);
        }
    }
}

static void print_doctor_text(const struct fl_diagnosis *found, const struct offers *offers,
                              const struct arguments *args)
{
    int64_t patience = (int64_t)args->patience_ms;
    bool all = args->all;
    for (size_t i = 0; i < found->cases; i++) {
        if (all || found->uffd[i].verdict != FL_VERDICT_OK)
            print_case(found, &found->uffd[i]);
    }
    for (size_t i = 0; i < found->tasks; i++) {
        if (all || found->task[i].waiting_ms < 0 || found->task[i].waiting_ms >= patience)
            print_task(found, &found->task[i]);
    }
    doctor_print_fuse(found, patience, all);
    for (size_t i = 0; i < found->dyings && shows_dying(found); i++)
        print_dying(&found->dying[i]);
    print_all_stopped(found);
    for (size_t i = 0; i < found->cases; i++) {
        if (found->uffd[i].left_protected > 0)
            print_protected(&found->uffd[i]);
    }
    doctor_print_huge(found);
    doctor_print_left(found);
    doctor_print_offers(args->store, offers);
    const char *unseen = doctor_explain_view(found);
    if (unseen)
        printf("%s\n", unseen);
    else if (!found->complete)
        printf("not all processes could be read: run this as root\n");
    printf("%s: %zu userfaultfd%s, %zu task%s waiting, %zu of them kernel worker%s",
           !found->healthy   ? "NOT HEALTHY"
           : found->complete ? "healthy"
                             : "NOT KNOWN",
           found->cases, cli_s(found->cases), found->tasks, cli_s(found->tasks),
           found->kernel_tasks, cli_s(found->kernel_tasks));
    if (found->fuses > 0)
        printf("; %zu FUSE connection%s, %zu task%s waiting", found->fuses, cli_s(found->fuses),
               found->fuse_tasks, cli_s(found->fuse_tasks));
    putchar('\n');
}

// --- JSON ---

static json_t *case_json(const struct fl_diagnosis *found, const struct fl_uffd_case *uffd)
{
    struct doctor_mend mend;
    json_t *holders = json_array();
    for (size_t i = 0; i < uffd->holders; i++)
        json_array_append_new(holders,
                              json_pack("{s:i, s:i, s:s, s:b}", "pid", (int)uffd->holder[i].pid,
                                        "fd", uffd->holder[i].fd, "name", uffd->holder[i].name,
                                        "stopped", (int)uffd->holder[i].stopped));
    doctor_mend(found, uffd, &mend);
    return json_pack("{s:I, s:s, s:s, s:i, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s}",
                     "inode", (json_int_t)uffd->inode, "verdict", fl_verdict_name(uffd->verdict),
                     "reason", doctor_explain(found, uffd), "vm_pid", (int)uffd->vm, "vm_name",
                     uffd->vm_name, "holders", holders, "unread", (json_int_t)uffd->pending,
                     "unresolved", (json_int_t)uffd->unresolved, "tasks", (json_int_t)uffd->tasks,
                     "waiting_ms", (json_int_t)uffd->waiting_ms, "left_protected",
                     (json_int_t)uffd->left_protected, "mend", mend.command, "mend_only_if",
                     mend.only_if ? mend.only_if : "", "mend_else", mend.otherwise);
}

static json_t *task_json(const struct fl_diagnosis *found, const struct fl_waiting_task *task)
{
    char memory[DOCTOR_WHOSE];
    doctor_whose(found, task, memory, sizeof(memory));
    return json_pack("{s:i, s:i, s:s, s:b, s:s%, s:I, s:s, s:i, s:s, s:b}", "pid", (int)task->pid,
                     "tid", (int)task->tid, "name", task->name, "kernel", (int)task->kernel,
                     "state", &task->state, (size_t)1, "waiting_ms", (json_int_t)task->waiting_ms,
                     "stack", task->stack, "vm_pid", (int)task->vm, "waits", memory, "unexplained",
                     (int)task->unexplained);
}

static void print_doctor_json(const struct fl_diagnosis *found, const struct offers *offers,
                              const struct arguments *args)
{
    json_t *cases = json_array();
    json_t *tasks = json_array();
    json_t *dying = json_array();
    for (size_t i = 0; i < found->cases; i++)
        json_array_append_new(cases, case_json(found, &found->uffd[i]));
    for (size_t i = 0; i < found->tasks; i++)
        json_array_append_new(tasks, task_json(found, &found->task[i]));
    for (size_t i = 0; i < found->dyings && shows_dying(found); i++)
        json_array_append_new(dying, task_json(found, &found->dying[i]));
    static const char *const views[] = {
        [FL_PROC_ALL] = "all", [FL_PROC_PART] = "partial", [FL_PROC_OTHER] = "another's"};
    json_t *all = json_pack(
        "{s:b, s:b, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "healthy",
        (int)found->healthy, "complete", (int)found->complete, "view", views[found->view],
        "stopped", (json_int_t)found->stopped, "userfaultfds", cases, "tasks", tasks, "dying",
        dying, "fuse_connections", doctor_fuse_json(found), "fuse_tasks",
        doctor_fuse_tasks_json(found), "checkpoints_left", doctor_left_json(found), "offers_left",
        doctor_offers_json(args->store, offers), "huge_refused", doctor_huge_json(found));
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

static int cmd_doctor(int argc, char **argv)
{
    struct arguments args = {.json = false};
    int parsed = cli_parse(&verb_doctor, &args, argc, argv);
    if (parsed != EXIT_DONE)
        return parsed;
    if (optind != argc)
        return cli_usage("doctor", "it takes no argument '%s'", argv[optind]);
    if (cli_check_page_size("doctor") != EXIT_DONE)
        return EXIT_FAILED;
    struct fl_diagnosis found;
    struct offers offers;
    int error = fl_diagnose((int64_t)args.patience_ms, &found);
    if (error)
        return cli_fail_errno("doctor", error, "cannot read /proc");
    doctor_find_offers(args.store, &offers);
    if (args.json)
        print_doctor_json(&found, &offers, &args);
    else
        print_doctor_text(&found, &offers, &args);
    offers_free(&offers);
    int status = found.healthy && found.complete ? EXIT_DONE : EXIT_FAILED;
    fl_diagnosis_free(&found);
    return status;
}

const struct verb verb_doctor = {
    .name = "doctor",
    .run = cmd_doctor,
    .summary = "find VMs of this host that wait for a page for ever, and what helps",
    .synopsis = {"[OPTION...]"},
    .about = "Finds every userfaultfd of this host, whatever its handler is. Shows "
             "which processes hold it, whose memory it is for, how many faults wait "
             "on it (not read yet, or read and not resolved) and how long, and a "
             "command that helps. Does the same for FUSE connections, such as those of images as "
             "files (serve --files). Reads /proc, and the store if it is there, so it needs no "
             "server. Run "
             "it as root.",
    .status = "0 if no fault waits too long and no handler is stopped; 1 if not, or "
              "if not all processes of the host could be seen.",
    .options = options,
};
