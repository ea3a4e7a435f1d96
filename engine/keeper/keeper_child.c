// SPDX-License-Identifier: Apache-2.0
#include "engine/keeper/keeper_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/descriptors.h"
#include "engine/keeper/keeper_options.h"
#include "engine/link/channel.h"
#include "engine/link/death_watch.h"

enum { ARGS_MAX = 256 };

// A process group of its own: a ^C at the terminal is for the keeper alone, which tells the engine.
void fl_child_leave_keeper(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    unsetenv(FL_KEEPER_ENVIRONMENT);
}

// In the new process.
static void become_engine(int executable, int channel, int lock, char *const *argv,
                          const struct fl_settings *settings)
{
    enum { OF_AN_ENGINE = 96 };
    const char *args[ARGS_MAX] = {"faultline", "engine"};
    unsigned count = 2;
    for (unsigned i = 1; argv[i] && count < ARGS_MAX - 1; i++)
        args[count++] = argv[i];
    fl_child_leave_keeper();
    fl_settings_pass_on(settings);
    // It is sent all that we hold.
    fl_descriptors_fit(OF_AN_ENGINE);
    // Its number may be that of the executable: out of the way first.
    int program = executable != FL_ENGINE_CHANNEL
                      ? executable
                      : fcntl(executable, F_DUPFD_CLOEXEC, FL_ENGINE_CHANNEL + 1);
    if (lock >= 0) // a number that is not closed by the exec, and out of the channel's way
        fcntl(lock, F_DUPFD, FL_ENGINE_CHANNEL + 1);
    if (channel == FL_ENGINE_CHANNEL)
        fcntl(channel, F_SETFD, 0);
    else
        dup2(channel, FL_ENGINE_CHANNEL);
    syscall(SYS_execveat, program, "", args, environ, AT_EMPTY_PATH);
    dprintf(STDERR_FILENO, "faultline serve: the engine cannot be started: %s\n", strerror(errno));
    _exit(127);
}

int fl_child_start(int executable, char *const *argv, int lock, const struct fl_settings *settings,
                   struct fl_child **ret_child)
{
    int pair[2];
    struct fl_child *child = calloc(1, sizeof(*child));
    if (!child || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        free(child);
        return -errno;
    }
    pid_t pid = fork();
    if (pid == 0)
        become_engine(executable, pair[1], lock, argv, settings);
    int error = pid < 0 ? -errno : 0;
    close(pair[1]);
    if (!error) {
        child->born = true;
        child->pid = pid;
        child->channel = pair[0];
        child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        error = child->pidfd < 0 ? -errno : 0;
    }
    if (error) {
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
        close(pair[0]);
        free(child);
        return error;
    }
    child->life = -1;
    child->since_ns = fl_now();
    *ret_child = child;
    return 0;
}

int fl_child_watch_life(struct fl_child *child, int life)
{
    if (child->life >= 0) { // as it was READY
        close(life);
        return 0;
    }
    child->life = life;
    return fl_death_watch_start(life, &child->lives);
}

bool fl_child_is_over(struct fl_child *child)
{
    struct pollfd ended = {.fd = child->pidfd, .events = POLLIN};
    child->over = child->over || (child->lives && fl_death_watch_is_over(child->lives)) ||
                  poll(&ended, 1, 0) > 0;
    return child->over;
}

bool fl_child_holds(const struct fl_child *child, uint64_t vm)
{
    return child->lives && fl_death_watch_holds(child->lives, vm);
}

int fl_child_adopt(int channel, int pidfd, pid_t pid, struct fl_child **ret_child)
{
    struct fl_child *child = calloc(1, sizeof(*child));
    if (!child || pidfd < 0) {
        int error = child ? -EBADF : -ENOMEM;
        if (pidfd >= 0)
            close(pidfd);
        close(channel);
        free(child);
        return error;
    }
    // Ours if this process started it before it exec'ed itself.
    siginfo_t info;
    child->born = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
    child->pid = pid;
    child->pidfd = pidfd;
    child->channel = channel;
    child->life = -1;
    child->phase = FL_CHILD_SERVING;
    child->since_ns = fl_now();
    *ret_child = child;
    return 0;
}

void fl_child_set_phase(struct fl_child *child, enum fl_child_phase phase)
{
    child->phase = phase;
    child->since_ns = fl_now();
}

void fl_child_kill(struct fl_child *child)
{
    syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
}

int fl_child_ended(struct fl_child *child, int *ret_status, char *ret_words, unsigned size)
{
    siginfo_t info = {0};
    struct pollfd poll_fd = {.fd = child->pidfd, .events = POLLIN};
    *ret_status = -1;
    if (!child->born) {
        snprintf(ret_words, size, "it is gone");
        return poll(&poll_fd, 1, 0) == 1 ? 0 : -EAGAIN;
    }
    if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
        return -EAGAIN;
    if (info.si_code == CLD_EXITED) {
        *ret_status = info.si_status;
        snprintf(ret_words, size, "exit status %d", info.si_status);
    } else {
        snprintf(ret_words, size, "signal %d, %s", info.si_status, strsignal(info.si_status));
    }
    return 0;
}

void fl_child_free(struct fl_child *child)
{
    if (child->channel >= 0)
        close(child->channel);
    if (child->life >= 0)
        close(child->life);
    if (child->lives)
        fl_death_watch_stop(child->lives);
    close(child->pidfd);
    free(child);
}
