// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_huge.h"

#include <inttypes.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/host/procfs.h"

enum { STATUS_TEXT = 8192 };

struct search {
    pid_t pid;
    bool found;
};

static int look_at_thread(void *arg, int tid)
{
    char path[96];
    char name[32];
    struct search *search = arg;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", (int)search->pid, tid);
    if (fl_proc_read(path, name, sizeof(name)) > 0 && strcmp(name, "fl-collapse\n") == 0)
        search->found = true;
    return search->found;
}

// That thread is there once a VM is to have such pages.
static bool puts_together(pid_t pid)
{
    char path[64];
    struct search search = {.pid = pid};
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    fl_proc_each(path, look_at_thread, &search);
    return search.found;
}

// The capabilities that the process lacks for it; "" if it has them, or cannot be read.
static const char *lacks(pid_t pid)
{
    char path[64];
    char text[STATUS_TEXT];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return "";
    const char *line = strstr(text, "\nCapEff:");
    if (!line)
        return "";
    uint64_t has = strtoull(line + strlen("\nCapEff:"), NULL, 16);
    bool nice = (has >> CAP_SYS_NICE & 1) != 0;
    bool ptrace = (has >> CAP_SYS_PTRACE & 1) != 0;
    return nice && ptrace ? ""
           : nice         ? "CAP_SYS_PTRACE"
           : ptrace       ? "CAP_SYS_NICE"
                          : "CAP_SYS_NICE CAP_SYS_PTRACE";
}

static bool was_looked_at(const struct fl_diagnosis *found, size_t case_index, pid_t pid)
{
    for (size_t i = 0; i < case_index; i++) {
        for (size_t j = 0; j < found->uffd[i].holders; j++) {
            if (found->uffd[i].holder[j].pid == pid)
                return true;
        }
    }
    return false;
}

typedef void say_lacks(void *arg, const struct fl_uffd_holder *holder, const char *lacks);

// Once for each such process, however many userfaultfds it holds.
static void each_lacking(const struct fl_diagnosis *found, say_lacks *say, void *arg)
{
    for (size_t i = 0; i < found->cases; i++) {
        const struct fl_uffd_case *uffd = &found->uffd[i];
        for (size_t j = 0; j < uffd->holders; j++) {
            const struct fl_uffd_holder *holder = &uffd->holder[j];
            if (holder->pid == uffd->vm || was_looked_at(found, i, holder->pid) ||
                !puts_together(holder->pid))
                continue;
            const char *what = lacks(holder->pid);
            if (*what)
                say(arg, holder, what);
        }
    }
}

static void print_one(void *arg, const struct fl_uffd_holder *holder, const char *what)
{
    (void)arg;
    printf(
        "%s (pid %d) is to put pages of VMs together to pages of 2 MiB (serve --huge), and lacks "
        "%s: where it takes that, working sets stay in pages of 4 KiB\n",
        holder->name, (int)holder->pid, what);
}

void doctor_print_huge(const struct fl_diagnosis *found)
{
    each_lacking(found, print_one, NULL);
}

static void append_one(void *list, const struct fl_uffd_holder *holder, const char *what)
{
    json_array_append_new(list, json_pack("{s:i, s:s, s:s}", "pid", (int)holder->pid, "name",
                                          holder->name, "lacks", what));
}

json_t *doctor_huge_json(const struct fl_diagnosis *found)
{
    json_t *list = json_array();
    each_lacking(found, append_one, list);
    return list;
}
