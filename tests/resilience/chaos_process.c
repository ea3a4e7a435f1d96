// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/server.h"

enum { PROCESSES_MAX = 16384, LEFT_MAX = 1024, TRIES = 100 };

static volatile sig_atomic_t told;
static volatile sig_atomic_t guarded; // the child's pid

static void tell(int number)
{
    (void)number;
    told = 1;
    if (guarded > 0)
        kill((pid_t)guarded, SIGTERM);
}

static void catch_end(void)
{
    struct sigaction action = {.sa_handler = tell, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool chaos_told_to_end(void)
{
    return told;
}

pid_t chaos_spawn(const char *const *argv, int log_fd)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid < 0 ? -errno : pid;
    child_setup();
    if (dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
        _exit(126);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): execv() has no const
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

// --- descendants ---

struct process {
    pid_t pid;
    pid_t parent;
    bool mine;
};

static bool read_parent(const char *name, struct process *ret_process)
{
    char path[64];
    char line[512] = "";
    snprintf(path, sizeof(path), "/proc/%.20s/stat", name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool got = fgets(line, sizeof(line), file) != NULL;
    fclose(file);
    const char *after =
        strrchr(line, ')'); // of the command's name, which may contain any character
    char state;
    int parent;
    if (!got || after == NULL || sscanf(after + 1, " %c %d", &state, &parent) != 2)
        return false;
    *ret_process = (struct process){.pid = (pid_t)strtol(name, NULL, 10), .parent = parent};
    return true;
}

static unsigned list_processes(struct process *process)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc");
    const struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL && count < PROCESSES_MAX) {
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            count += read_parent(entry->d_name, &process[count]);
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

// Marks the processes whose parent is marked, until no new one is found. Returns how many are
// marked.
static unsigned mark(struct process *process, unsigned count, pid_t root)
{
    unsigned marked = 0;
    bool more = true;
    while (more) {
        more = false;
        for (unsigned i = 0; i < count; i++) {
            bool mine = process[i].parent == root;
            for (unsigned k = 0; k < count && !mine; k++)
                mine = process[k].mine && process[k].pid == process[i].parent;
            if (process[i].mine || !mine)
                continue;
            more = process[i].mine = true;
            marked++;
        }
    }
    return marked;
}

unsigned chaos_descendants(pid_t *ret_pids, unsigned most)
{
    static struct process process[PROCESSES_MAX];
    unsigned count = list_processes(process);
    unsigned marked = mark(process, count, getpid());
    unsigned put = 0;
    for (unsigned i = 0; i < count && put < most; i++) {
        if (process[i].mine)
            ret_pids[put++] = process[i].pid;
    }
    return marked;
}

bool chaos_can_run(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && geteuid() == 0)
        return true;
    fputs("SKIPPED: it takes root and userfaultfd\n", stderr);
    return false;
}

// --- the guardian ---

// Kills all descendants. The clients have died with the run, so that no fault waits for the
// engines. It tries again and again, as a keeper may just be starting an engine. Returns how many
// there were.
static unsigned end_all(void)
{
    pid_t pids[LEFT_MAX];
    unsigned first = 0;
    for (unsigned i = 0; i < TRIES; i++) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        unsigned count = chaos_descendants(pids, LEFT_MAX);
        if (i == 0)
            first = count;
        for (unsigned k = 0; k < count && k < LEFT_MAX; k++)
            kill(pids[k], SIGKILL);
        if (count == 0)
            break;
        usleep(10000);
    }
    return first;
}

int chaos_guard(int (*run)(void *arg), void *arg, unsigned *ret_left)
{
    int status = 0;
    pid_t guardian = getpid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    catch_end();
    pid_t pid = fork();
    if (pid < 0)
        return 1;
    if (pid == 0) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        _exit(getppid() == guardian ? run(arg) : 1);
    }
    guarded = pid;
    if (told)
        kill(pid, SIGTERM);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    guarded = 0;
    *ret_left = end_all();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
