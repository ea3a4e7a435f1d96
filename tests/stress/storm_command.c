// SPDX-License-Identifier: Apache-2.0
#include "tests/stress/storm_command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/server.h"

enum { ARGS = 16 };

static void become(const char *const *args, int in, int out)
{
    child_setup();
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execv(getenv("FAULTLINE_BIN"), (char *const *)args);
    _exit(127);
}

bool storm_command_begin(struct storm_command *command, const char *control, const char *name,
                         uint64_t vm, const char *const *flags)
{
    int in[2];
    int out[2];
    char number[24];
    const char *args[ARGS + 1] = {"faultline", "checkpoint", "--external", "--json",
                                  "--control", control,      "--name",     name};
    unsigned count = 8;
    for (; *flags && count < ARGS - 1; flags++)
        args[count++] = *flags;
    snprintf(number, sizeof(number), "%" PRIu64, vm);
    args[count++] = number;
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        return false;
    *command = (struct storm_command){.pid = fork(), .in = in[1], .out = out[0]};
    if (command->pid == 0)
        become(args, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    return command->pid > 0;
}

// False: nothing more comes, or not in time.
static bool read_some(struct storm_command *command)
{
    struct pollfd poll_fd = {.fd = command->out, .events = POLLIN};
    size_t room = sizeof(command->text) - 1 - command->used;
    if (room == 0 || poll(&poll_fd, 1, 2 * TEST_DEADLINE_MS) != 1)
        return false;
    ssize_t got = read(command->out, command->text + command->used, room);
    if (got <= 0)
        return false;
    command->used += (size_t)got;
    command->text[command->used] = '\0';
    return true;
}

bool storm_command_says(struct storm_command *command, const char *words)
{
    while (!strstr(command->text, words)) {
        if (!read_some(command))
            return false;
    }
    return true;
}

bool storm_command_answer(struct storm_command *command)
{
    static const char paused[] = "paused\n";
    return write(command->in, paused, sizeof(paused) - 1) == (ssize_t)sizeof(paused) - 1;
}

static bool has_ended(void *arg)
{
    siginfo_t info = {0};
    const struct storm_command *command = arg;
    return waitid(P_PID, (id_t)command->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

int storm_command_end(struct storm_command *command)
{
    siginfo_t info = {0};
    while (read_some(command)) {
    }
    bool ended = wait_until(has_ended, command);
    if (!ended)
        kill(command->pid, SIGKILL);
    while (waitid(P_PID, (id_t)command->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
    return !ended ? -1 : info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

void storm_command_reap(struct storm_command *command)
{
    while (waitpid(command->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    close(command->in);
    close(command->out);
}
