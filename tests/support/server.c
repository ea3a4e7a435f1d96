// SPDX-License-Identifier: Apache-2.0
#include "tests/support/server.h"
#include "tests/support/stop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 5 };

static void die(const char *what)
{
    fprintf(stderr, "test support: %s: %s\n", what, strerror(errno));
    abort();
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool wait_until(bool (*condition)(void *arg), void *arg)
{
    long end = now_ms() + TEST_DEADLINE_MS;
    while (!condition(arg)) {
        if (now_ms() > end)
            return false;
        poll(NULL, 0, POLL_MS);
    }
    return true;
}

bool socket_is_open(void *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && (status.st_mode & 0777) != 0;
}

// --- processes ---

void child_setup(void)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int number = 1; number < SIGRTMIN; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static const char *binary(void)
{
    const char *path = getenv("FAULTLINE_BIN");
    if (!path) {
        errno = ENOENT;
        die("FAULTLINE_BIN is not set");
    }
    return path;
}

static void redirect(int to, const char *path)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, to) < 0)
        _exit(126);
}

static void execute(const char *const *args)
{
    const char *argv[SERVER_ARGS + 2] = {binary()};
    for (unsigned i = 0; args[i] && i < SERVER_ARGS; i++)
        argv[i + 1] = args[i];
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

void server_spawn(struct server *server, const struct temp *temp, const char *name,
                  const char *const *args)
{
    snprintf(server->log, sizeof(server->log), "%.400s/%.80s.log", temp->path, name);
    snprintf(server->out, sizeof(server->out), "%.400s/%.80s.out", temp->path, name);
    close(open(server->log, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    server->deaths = 0;
    server->pid = fork();
    if (server->pid < 0)
        die("fork");
    if (server->pid > 0)
        return;
    child_setup();
    redirect(STDOUT_FILENO, server->out);
    redirect(STDERR_FILENO, server->log);
    execute(args);
}

bool server_start(struct server *server, const struct temp *temp, const char *name,
                  const char *const *args)
{
    server_spawn(server, temp, name, args);
    return server_wait_log(server, "event=ready", 1);
}

bool server_serve(struct server *server, const struct temp *temp, const char *store,
                  const char *const *extra)
{
    const char *args[SERVER_ARGS + 1] = {"serve",
                                         "--store",
                                         store,
                                         "--sockets",
                                         temp_path(temp, "sockets"),
                                         "--control",
                                         temp_path(temp, "control.sock")};
    for (unsigned i = 7, k = 0; extra && extra[k] && i < SERVER_ARGS; i++, k++)
        args[i] = extra[k];
    return server_start(server, temp, "serve", args);
}

static int status_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int reap(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status_of(status);
}

// --- the engine, which is a child of what was started ---

// The pid in the last line that says who serves; a `handler` serves itself.
pid_t server_engine(const struct server *server)
{
    char line[2048];
    int pid = 0;
    FILE *file = fopen(server->log, "re");
    while (file && fgets(line, sizeof(line), file)) {
        const char *at = strstr(line, "event=ready pid=");
        if (at)
            sscanf(at, "event=ready pid=%d", &pid);
    }
    if (file)
        fclose(file);
    return pid ? pid : server->pid;
}

pid_t server_engine_thread(const struct server *server, const char *name)
{
    char path[64];
    char line[64];
    pid_t found = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)server_engine(server));
    DIR *tasks = opendir(path);
    const struct dirent *task;
    while (tasks && !found && (task = readdir(tasks))) {
        char comm[sizeof(path) + sizeof(task->d_name) + 8] = "";
        snprintf(comm, sizeof(comm), "%s/%s/comm", path, task->d_name);
        FILE *file = fopen(comm, "re");
        if (file && fgets(line, sizeof(line), file) && strncmp(line, name, strlen(name)) == 0)
            found = (pid_t)strtol(task->d_name, NULL, 10);
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return found;
}

void server_kill_keeper(struct server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    reap(server->pid);
    server->pid = 0;
}

bool process_ended(void *pid)
{
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, *(pid_t *)pid, 0), .events = POLLIN};
    bool yes = ended.fd < 0 ? errno == ESRCH : poll(&ended, 1, 0) == 1;
    if (ended.fd >= 0)
        close(ended.fd);
    return yes;
}

void server_kill(struct server *server)
{
    pid_t engine = server_engine(server);
    bool keeper = engine != server->pid;
    server_kill_keeper(server); // first: it would start another engine
    if (!keeper || engine <= 0)
        return;
    // Its last thread, not only its first.
    struct pollfd poll_fd = {.fd = (int)syscall(SYS_pidfd_open, engine, 0), .events = POLLIN};
    kill(engine, SIGKILL);
    if (poll_fd.fd >= 0 && poll(&poll_fd, 1, TEST_DEADLINE_MS) != 1)
        die("the engine cannot be killed");
    close(poll_fd.fd);
}

bool server_kill_engine(struct server *server)
{
    unsigned ready = server_count_log(server, "event=ready pid=");
    server->deaths++;
    return kill(server_engine(server), SIGKILL) == 0 &&
           server_wait_log(server, "event=ready pid=", ready + 1);
}

void server_pause(const struct server *server)
{
    if (!process_stop(server_engine(server)))
        die("the engine does not stop");
}

void server_resume(const struct server *server)
{
    kill(server_engine(server), SIGCONT);
}

// After the log, which may be long: output is often cut to its last lines.
static void say_why_engine_died(const struct server *server)
{
    char line[512] = "";
    if (!server_find_log(server, SERVER_SANITIZER_SUMMARY, line, sizeof(line)))
        server_find_log(server, "event=engine_died", line, sizeof(line));
    fprintf(stderr, "an engine died that was not meant to: %s\n", line);
}

int server_stop(struct server *server)
{
    if (server->pid <= 0)
        return -1;
    char unlisted[512];
    int pidfd = (int)syscall(SYS_pidfd_open, server->pid, 0);
    kill(server->pid, SIGTERM);
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
    bool ended = poll(&poll_fd, 1, TEST_DEADLINE_MS) == 1;
    close(pidfd);
    if (!ended) {
        server_print_log(server);
        server_kill(server);
        return -1;
    }
    int status = reap(server->pid);
    server->pid = 0;
    if (server_find_log(server, SERVER_UNLISTED_CALL, unlisted, sizeof(unlisted))) {
        server_print_log(server);
        fprintf(stderr, "engine/base/call_lists.c lacks a system call: %s\n", unlisted);
        return -1;
    }
    if (server_count_log(server, "event=engine_died") > server->deaths) {
        server_print_log(server);
        say_why_engine_died(server);
        return -1;
    }
    return status;
}

unsigned server_descriptors(const struct server *server)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)server_engine(server));
    DIR *directory = opendir(path);
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count - 2; // "." and ".."
}

long server_memory_kib(const struct server *server)
{
    char path[64];
    char line[256];
    long kib = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)server_engine(server));
    FILE *file = fopen(path, "re");
    while (file && kib < 0 && fgets(line, sizeof(line), file))
        sscanf(line, "VmHWM: %ld kB", &kib);
    if (file)
        fclose(file);
    return kib;
}

// --- its log ---

unsigned server_count_log(const struct server *server, const char *text)
{
    char line[2048];
    unsigned count = 0;
    FILE *file = fopen(server->log, "re");
    while (file && fgets(line, sizeof(line), file))
        count += strstr(line, text) != NULL;
    if (file)
        fclose(file);
    return count;
}

bool server_find_log(const struct server *server, const char *text, char *ret_line, size_t size)
{
    char line[2048];
    bool found = false;
    FILE *file = fopen(server->log, "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found = strstr(line, text) != NULL;
    if (file)
        fclose(file);
    line[found ? strcspn(line, "\n") : 0] = '\0';
    if (found)
        snprintf(ret_line, size, "%s", line);
    return found;
}

void server_print_log(const struct server *server)
{
    char line[2048];
    FILE *file = fopen(server->log, "re");
    while (file && fgets(line, sizeof(line), file))
        fprintf(stderr, "  | %s", line);
    if (file)
        fclose(file);
}

struct wanted {
    const struct server *server;
    const char *text;
    unsigned count;
};

static bool logged(void *arg)
{
    const struct wanted *wanted = arg;
    return server_count_log(wanted->server, wanted->text) >= wanted->count;
}

static bool logged_or_dead(void *arg)
{
    const struct wanted *wanted = arg;
    siginfo_t info = {0};
    return logged(arg) ||
           (waitid(P_PID, (id_t)wanted->server->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid != 0);
}

bool server_wait_log(const struct server *server, const char *text, unsigned count)
{
    struct wanted wanted = {server, text, count};
    wait_until(logged_or_dead, &wanted);
    if (logged(&wanted))
        return true;
    fprintf(stderr, "the log has no %u lines with '%s':\n", count, text);
    server_print_log(server);
    return false;
}

unsigned server_logs(const struct server *server, const char *text, unsigned count)
{
    server_wait_log(server, text, count);
    return server_count_log(server, text);
}

// --- a verb ---

int faultline_run(char *ret_output, size_t size, const char *const *args)
{
    int output[2];
    size_t used = 0;
    if (pipe2(output, O_CLOEXEC) != 0)
        die("pipe2");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        child_setup();
        alarm(2 * TEST_DEADLINE_MS / 1000); // the exec keeps it
        dup2(output[1], STDOUT_FILENO);
        dup2(output[1], STDERR_FILENO);
        execute(args);
    }
    close(output[1]);
    char chunk[4096];
    ssize_t got;
    while ((got = read(output[0], chunk, sizeof(chunk))) > 0) {
        size_t room = ret_output && used + 1 < size ? size - used - 1 : 0;
        size_t part = (size_t)got < room ? (size_t)got : room;
        if (part > 0)
            memcpy(ret_output + used, chunk, part);
        used += part;
    }
    close(output[0]);
    if (ret_output && size > 0)
        ret_output[used] = '\0';
    return reap(pid);
}
