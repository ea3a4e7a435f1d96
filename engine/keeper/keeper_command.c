// SPDX-License-Identifier: Apache-2.0
//
// Commands that an engine has run: it may start no process itself (base/call_lists.h). A command is
// a process of its own, which the keeper knows nothing of but that its end is to be collected. When
// to end it hears from the other end of its standard input and output, or finds that closed.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/link/channel.h"

enum { LINE_BYTES = 256 };

// The engine's client waits for lines of JSON.
static void say_failed(int socket, int error)
{
    char line[LINE_BYTES];
    int length = snprintf(line, sizeof(line),
                          "{\"event\":\"failed\",\"reason\":\"the command cannot be started: "
                          "%s\"}\n",
                          strerror(error));
    send(socket, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// Where memory is short it goes before the server does, and before the VMs.
static void be_dispensable(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t written = write(fd, "500", 3);
    (void)written; // it is like the server then
    close(fd);
}

static void default_signals(void)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
}

// In the new process.
static void become_command(char *arguments, int socket, int program)
{
    const char *args[FL_COMMAND_ARGS + 1] = {"faultline"};
    unsigned count = 1;
    char *rest = NULL;
    for (char *at = strtok_r(arguments, "\n", &rest); at && count < FL_COMMAND_ARGS;
         at = strtok_r(NULL, "\n", &rest))
        args[count++] = at;
    fl_child_leave_keeper();
    default_signals();
    be_dispensable();
    // The descriptors of the keeper's are closed by the exec; these two are above the standard
    // ones.
    if (dup2(socket, STDIN_FILENO) >= 0 && dup2(socket, STDOUT_FILENO) >= 0)
        syscall(SYS_execveat, program, "", args, environ, AT_EMPTY_PATH);
    say_failed(socket, errno);
    _exit(127);
}

void fl_keeper_run_command(const char *arguments, const int fds[FL_CHANNEL_FDS])
{
    int socket = fds[FL_COMMAND_STDIO];
    int program = fds[FL_COMMAND_PROGRAM];
    if (socket < 0 || program < 0) // they were lost for want of room: the socket's end says so
        return;
    char *copy = strdup(arguments);
    pid_t pid = copy ? fork() : -1;
    if (pid == 0)
        become_command(copy, socket, program);
    if (pid < 0) {
        int error = copy ? errno : ENOMEM;
        fl_log(FL_LOG_WARNING,
               "event=command_failed reason=\"a process for 'faultline %.*s' cannot be started: "
               "%s\"",
               (int)strcspn(arguments, "\n"), arguments, strerror(error));
        say_failed(socket, error);
    }
    free(copy);
}

static bool is_engine(const struct fl_keeper *keeper, pid_t pid)
{
    const struct fl_child *child;
    cds_list_for_each_entry(child, &keeper->children, link)
    {
        if (child->pid == pid)
            return true;
    }
    return false;
}

// Whatever is not an engine: also what this process has started before an exec, and, where it is
// the first process of a container, what others have left. The end of an engine is collected where
// it is seen (keeper_child.h), and comes first.
void fl_keeper_collect_commands(const struct fl_keeper *keeper)
{
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
           !is_engine(keeper, info.si_pid)) {
        waitpid(info.si_pid, NULL, WNOHANG);
        info.si_pid = 0;
    }
}
