// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_process.h"
#include "tests/support/notify_peer.h"
#include "tests/support/server.h"

enum { STORE_MAX = 4096, MANAGER_MS = 30000 };

static bool say(const char *what, const char *name)
{
    fprintf(stderr, "chaos: %s: %s\n", what, name);
    return false;
}

// --- preparation ---

static void set_paths(struct chaos_service *service, const struct temp *temp)
{
    snprintf(service->store, CHAOS_PATH, "%s/store", temp->path);
    snprintf(service->sockets, CHAOS_PATH, "%s/sockets", temp->path);
    snprintf(service->socket, CHAOS_PATH, "%s/sockets/image.sock", temp->path);
    snprintf(service->template, CHAOS_PATH, "%s/sockets/image.template", temp->path);
    snprintf(service->control, CHAOS_PATH, "%s/control.sock", temp->path);
    snprintf(service->token, CHAOS_PATH, "%s/token", temp->path);
    snprintf(service->log, CHAOS_PATH, "%s/serve.log", temp->path);
}

static void set_args(struct chaos_service *service)
{
    const char *args[] = {service->program,  "serve",          "--store",   service->store,
                          "--sockets",       service->sockets, "--control", service->control,
                          "--upgrade-trial", CHAOS_TRIAL_MS};
    memcpy(service->args, args, sizeof(args)); // the rest is NULL
}

static bool pack(const struct chaos_service *service, const char *file)
{
    char output[1024];
    const char *args[] = {"pack", "--store", service->store, "--name", "image", file, NULL};
    return faultline_run(output, sizeof(output), args) == 0 || say("pack", output);
}

bool chaos_service_prepare(struct chaos_service *service, const struct temp *temp,
                           const char *program, uint64_t seed, uint32_t pages, const char *log)
{
    char file[CHAOS_PATH];
    *service = (struct chaos_service){.program = program, .log_fd = -1, .follow_fd = -1};
    set_paths(service, temp);
    set_args(service);
    if (log != NULL)
        snprintf(service->log, CHAOS_PATH, "%s", log);
    snprintf(file, sizeof(file), "%s/memory", temp->path);
    int error = chaos_image_write(file, seed, pages);
    if (error < 0)
        return say(file, strerror(-error));
    service->log_fd = open(service->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    service->follow_fd = open(service->log, O_RDONLY | O_CLOEXEC);
    if (service->log_fd < 0 || service->follow_fd < 0)
        return say(service->log, strerror(errno));
    setenv("FAULTLINE_BIN", program, 1);
    if (!pack(service, file))
        return false;
    return true;
}

// --- the log ---

static struct chaos_engine *find(struct chaos_service *service, pid_t pid)
{
    for (unsigned i = service->engines; i > 0; i--) {
        struct chaos_engine *engine = &service->engine[i - 1];
        if (engine->pid == pid && engine->pidfd >= 0)
            return engine;
    }
    return NULL;
}

static void forget(struct chaos_engine *engine)
{
    if (engine != NULL && engine->pidfd >= 0)
        close(engine->pidfd);
    if (engine != NULL)
        engine->pidfd = -1;
}

static struct chaos_engine *meet(struct chaos_service *service, pid_t pid)
{
    struct chaos_engine *engine = find(service, pid);
    if (engine != NULL || service->engines == CHAOS_ENGINES)
        return engine;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) // it has ended: the log will say so
        return NULL;
    engine = &service->engine[service->engines++];
    *engine = (struct chaos_engine){.pid = pid, .pidfd = pidfd};
    return engine;
}

// Returns true if an engine has taken the token since it was made.
static bool was_armed(struct chaos_service *service)
{
    bool taken = service->armed && access(service->token, F_OK) != 0;
    if (taken)
        service->armed = false;
    return taken;
}

static void bury(struct chaos_service *service, pid_t pid, const char *line)
{
    struct chaos_engine *engine = find(service, pid);
    bool served = service->serving == pid;
    if (served)
        service->serving = 0;
    if ((engine == NULL || !engine->killed) && was_armed(service)) {
        service->died_armed++;
    } else if ((engine == NULL || !engine->killed) && service->scarce && !served) {
        service->stillborn++;
    } else if (engine == NULL || !engine->killed) {
        service->died_unasked++;
        say("an engine died that the run had not killed", line);
    }
    forget(engine);
}

static void take_line(struct chaos_service *service, const char *line)
{
    char event[32] = "";
    int pid = 0;
    const char *at = strstr(line, "event=");
    if (at == NULL || sscanf(at, "event=%31s", event) != 1)
        return;
    const char *number = strstr(at, " pid=");
    if (number != NULL)
        pid = (int)strtol(number + 5, NULL, 10);
    if (strcmp(event, "engine_ready") == 0) {
        forget(find(service, pid)); // an engine with the same pid, whose end no keeper logged
        meet(service, pid);
    } else if (strcmp(event, "engine_serving") == 0) {
        service->served++;
        const struct chaos_engine *engine = meet(service, pid);
        service->serving = engine != NULL && !engine->killed ? pid : 0;
    } else if (strcmp(event, "replayed") == 0) {
        service->replayed++;
    } else if (strcmp(event, "draining") == 0) {
        service->draining++;
    } else if (strcmp(event, "keeper_exec") == 0) {
        service->execed++;
    } else if (strcmp(event, "engine_died") == 0) {
        bury(service, pid, at);
    }
}

void chaos_service_follow(struct chaos_service *service)
{
    char chunk[4096];
    ssize_t got;
    while ((got = read(service->follow_fd, chunk, sizeof(chunk))) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (chunk[i] != '\n') {
                if (service->line_used + 1 < sizeof(service->line))
                    service->line[service->line_used++] = chunk[i];
                continue;
            }
            service->line[service->line_used] = '\0';
            service->line_used = 0;
            take_line(service, service->line);
        }
    }
}

// --- the keeper ---

bool chaos_service_start(struct chaos_service *service)
{
    pid_t pid = chaos_spawn(service->args, service->log_fd);
    if (pid < 0)
        return say("fork", strerror(-pid));
    service->keeper = pid;
    return true;
}

static pid_t reap(pid_t pid, int *ret_status)
{
    pid_t got;
    while ((got = waitpid(pid, ret_status, 0)) < 0 && errno == EINTR) {
    }
    return got;
}

bool chaos_service_reap(struct chaos_service *service)
{
    int status;
    // Engines whose keeper was killed are children of the driver.
    for (unsigned i = 0; i < service->engines; i++) {
        struct chaos_engine *engine = &service->engine[i];
        if (engine->pidfd >= 0 && !engine->reaped &&
            waitpid(engine->pid, &status, WNOHANG) == engine->pid)
            engine->reaped = true;
    }
    if (service->keeper <= 0 || service->peer != NULL ||
        waitpid(service->keeper, &status, WNOHANG) != service->keeper)
        return true;
    service->keeper = 0;
    return say("the keeper has ended", service->log);
}

void chaos_service_kill_keeper(struct chaos_service *service)
{
    int status;
    if (service->keeper <= 0 || service->peer != NULL)
        return;
    kill(service->keeper, SIGKILL);
    reap(service->keeper, &status);
    service->keeper = 0;
}

bool chaos_service_start_managed(struct chaos_service *service)
{
    static const char *const environment[] = {"FAULTLINE_FDSTORE=1", NULL};
    struct notify_peer_options options = {.argv = service->args,
                                          .environment = environment,
                                          .log = service->log,
                                          .store_max = STORE_MAX};
    service->peer = notify_peer_new(&options);
    if (service->peer == NULL || !notify_peer_start(service->peer, MANAGER_MS))
        return say("no keeper gets ready under a service manager", service->log);
    service->keeper = notify_peer_pid(service->peer);
    return true;
}

bool chaos_service_restart_managed(struct chaos_service *service, bool killed)
{
    if (killed)
        kill(notify_peer_pid(service->peer), SIGKILL);
    bool good = killed ? notify_peer_restart_ended(service->peer, MANAGER_MS)
                       : notify_peer_restart(service->peer, SIGUSR1, MANAGER_MS);
    service->keeper = notify_peer_pid(service->peer);
    service->serving = 0;
    chaos_service_follow(service);
    return good || say("the service manager's restart failed", service->log);
}

// --- engines ---

static bool kill_one(struct chaos_engine *engine, int number)
{
    if (syscall(SYS_pidfd_send_signal, engine->pidfd, number, NULL, 0) != 0)
        return false;
    engine->killed = true;
    return true;
}

bool chaos_service_kill_engine(struct chaos_service *service, int number)
{
    struct chaos_engine *engine = service->serving > 0 ? find(service, service->serving) : NULL;
    service->serving = 0; // until the log names the next
    return engine != NULL && !engine->killed && kill_one(engine, number);
}

bool chaos_service_kill_standby(struct chaos_service *service)
{
    struct chaos_engine *engine =
        service->engines > 0 ? &service->engine[service->engines - 1] : NULL;
    if (engine == NULL || engine->pidfd < 0 || engine->killed || engine->pid == service->serving)
        return false;
    return kill_one(engine, SIGKILL);
}

// --- points ---

void chaos_service_set_point(struct chaos_service *service, const char *point)
{
    service->armed = false;
    unlink(service->token);
    setenv("FAULTLINE_KILL_AT", point, 1);
    setenv("FAULTLINE_KILL_TOKEN", service->token, 1);
}

bool chaos_service_arm(struct chaos_service *service)
{
    int fd = open(service->token, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return say(service->token, strerror(errno));
    close(fd);
    return service->armed = true;
}

bool chaos_service_disarm(struct chaos_service *service)
{
    if (service->armed && unlink(service->token) == 0)
        service->armed = false;
    return !service->armed;
}

// --- the end ---

static int stop_own(struct chaos_service *service)
{
    int status = 0;
    int pidfd = (int)syscall(SYS_pidfd_open, service->keeper, 0);
    kill(service->keeper, SIGTERM);
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
    bool ended = pidfd >= 0 && poll(&poll_fd, 1, MANAGER_MS) == 1;
    if (pidfd >= 0)
        close(pidfd);
    if (!ended)
        kill(service->keeper, SIGKILL);
    reap(service->keeper, &status);
    service->keeper = 0;
    if (!ended)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int chaos_service_stop(struct chaos_service *service)
{
    service->serving = 0;
    if (service->peer != NULL) {
        int status = notify_peer_stop(service->peer, SIGTERM, MANAGER_MS);
        notify_peer_free(service->peer);
        service->peer = NULL;
        service->keeper = 0;
        return status < 0 || WIFEXITED(status) ? status >> 8 : 128 + WTERMSIG(status);
    }
    return service->keeper > 0 ? stop_own(service) : -1;
}

void chaos_service_kill(struct chaos_service *service)
{
    if (service->peer != NULL)
        notify_peer_free(service->peer);
    service->peer = NULL;
    chaos_service_kill_keeper(service);
    for (unsigned i = 0; i < service->engines; i++) {
        if (service->engine[i].pidfd >= 0)
            kill_one(&service->engine[i], SIGKILL);
    }
}
