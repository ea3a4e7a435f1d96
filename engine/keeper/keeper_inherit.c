// SPDX-License-Identifier: Apache-2.0
//
// What a keeper gets from one before it: from the service manager's store of descriptors, from
// itself before an exec, and from an engine that was left alone.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/unix_socket.h"
#include "engine/keeper/keeper.h"
#include "engine/keeper/service_manager.h"
#include "engine/link/channel.h"

enum { NUMBER = 24, ANSWER_MS = 5000, END_MS = 1000, REPLACE_AGAIN_MS = 1000 };
#define REPLACE_MOST (60 * FL_NS_PER_S)

// --- named descriptors ---

static void take_descriptor(struct fl_keeper *keeper, const char *name, uint64_t value, int fd)
{
    struct fl_message put = {0};
    int fds[FL_CHANNEL_FDS];
    memset(fds, -1, sizeof(fds));
    fds[0] = fd;
    int error = fl_record_parse(name, &put);
    put.value = value;
    if (!error)
        error = fl_records_put(&keeper->records, &put, fds);
    if (!error)
        return;
    fl_log(FL_LOG_ERROR, "event=inherit_failed name=%.60s reason=\"%s\"", name, strerror(-error));
    if (fds[0] >= 0)
        close(fds[0]);
}

static void from_manager(void *arg, const char *name, int fd)
{
    take_descriptor(arg, name, 0, fd);
}

// --- from itself, before an exec ---

// Its engine as a child that is watched, and is not ours yet. Takes the channel and the pidfd in
// every case. 0 or -errno.
static int adopt_engine(struct fl_keeper *keeper, int channel, int pidfd, pid_t pid,
                        struct fl_child **ret_child)
{
    int error = fl_child_adopt(channel, pidfd, pid, ret_child);
    if (error)
        return error;
    error = fl_keeper_watch_child(keeper, *ret_child);
    if (error)
        fl_keeper_let_go(keeper, *ret_child);
    return error;
}

static void take_engine(struct fl_keeper *keeper, struct fl_child *child, int life)
{
    keeper->serving = child;
    int error = life < 0 ? 0 : fl_keeper_watch_life(keeper, child, life);
    if (error) // its end will be seen later, that is all
        fl_log(FL_LOG_WARNING, "event=watch_failed pid=%d reason=\"%s\"", (int)child->pid,
               strerror(-error));
}

static void take_own_engine(struct fl_keeper *keeper, int channel, int life, pid_t pid)
{
    struct fl_child *child = NULL;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int error = pidfd < 0 ? -errno : adopt_engine(keeper, channel, pidfd, pid, &child);
    if (!error) {
        take_engine(keeper, child, life);
        return;
    }
    if (pidfd < 0)
        close(channel);
    if (life >= 0)
        close(life);
    fl_log(FL_LOG_ERROR, "event=inherit_failed name=engine reason=\"%s\"", strerror(-error));
}

// Lines "NAME VALUE FD", and one "engine PID CHANNEL LIFE" with the counts so far.
static void take_line(struct fl_keeper *keeper, const char *line)
{
    char name[FL_RECORD_NAME];
    uint64_t value = 0;
    int fd = -1;
    int life = -1;
    int pid = 0;
    // NOLINTBEGIN(cert-err34-c): what this very program has printed
    if (sscanf(line, "engine %d %d %d %" SCNu64 " %" SCNu64 " %" SCNu64, &pid, &fd, &life,
               &keeper->generation, &keeper->deaths, &keeper->upgrade.count) == 6) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (life >= 0)
            fcntl(life, F_SETFD, FD_CLOEXEC);
        take_own_engine(keeper, fd, life, pid);
    } else if (sscanf(line, "%63s %" SCNu64 " %d", name, &value, &fd) == 3) {
        // NOLINTEND(cert-err34-c)
        if (fd >= 0)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        take_descriptor(keeper, name, value, fd);
    }
}

static void from_exec(struct fl_keeper *keeper)
{
    const char *text = getenv(FL_KEEPER_ENVIRONMENT);
    FILE *list = text ? fdopen((int)strtol(text, NULL, 10), "re") : NULL;
    unsetenv(FL_KEEPER_ENVIRONMENT);
    if (!list)
        return;
    char *line = NULL;
    size_t room = 0;
    rewind(list);
    while (getline(&line, &room, list) > 0)
        take_line(keeper, line);
    free(line);
    fclose(list);
    keeper->announced = true;
    keeper->upgrade.state = FL_UPGRADE_DONE;
    // A keeper of a version before knew no counters, and has refused the engine's.
    if (cds_list_empty(&keeper->records.kind[FL_RECORD_COUNTERS]))
        keeper->incomplete = true;
    fl_log(FL_LOG_INFO, "event=keeper_exec pid=%d vms=%" PRIu64, (int)getpid(),
           keeper->records.vms);
}

static void pass_on(int fd)
{
    fcntl(fd, F_SETFD, 0);
}

static void list_record(FILE *list, const struct fl_record *record)
{
    char name[FL_RECORD_NAME];
    for (uint32_t i = 0; i < record->slots; i++) {
        if (record->fd[i] < 0 && record->kind != FL_RECORD_MODE) // that one is all in its value
            continue;
        fl_record_name(record, i, name);
        fprintf(list, "%s %" PRIu64 " %d\n", name, record->value, record->fd[i]);
        if (record->fd[i] >= 0)
            pass_on(record->fd[i]);
    }
}

static int write_list(struct fl_keeper *keeper, FILE *list)
{
    const struct fl_record *record = NULL;
    while ((record = fl_records_next(&keeper->records, record)) != NULL)
        list_record(list, record);
    fprintf(list, "engine %d %d %d %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
            (int)keeper->serving->pid, keeper->serving->channel, keeper->serving->life,
            keeper->generation, keeper->deaths, keeper->upgrade.count);
    pass_on(keeper->serving->channel);
    if (keeper->serving->life >= 0)
        pass_on(keeper->serving->life);
    return fflush(list) == 0 ? 0 : -errno;
}

// Those that do not serve would be zombies that the next program knows nothing of.
static void end_others(struct fl_keeper *keeper)
{
    struct fl_child *child;
    struct fl_child *next;
    cds_list_for_each_entry_safe(child, next, &keeper->children, link)
    {
        if (child == keeper->serving)
            continue;
        fl_child_kill(child);
        if (child->born)
            waitpid(child->pid, NULL, 0);
        cds_list_del(&child->link);
        fl_child_free(child);
    }
    keeper->standby = NULL;
}

static void become_successor(const struct fl_keeper *keeper, int executable)
{
    enum { ARGS_MAX = 256 };
    const char *args[ARGS_MAX] = {"faultline"};
    unsigned count = 1;
    for (unsigned i = 0; keeper->options->argv[i] && count < ARGS_MAX - 1; i++)
        args[count++] = keeper->options->argv[i];
    syscall(SYS_execveat, executable, "", args, environ, AT_EMPTY_PATH);
}

int fl_keeper_exec(struct fl_keeper *keeper, int executable)
{
    char number[NUMBER];
    int fd = memfd_create("faultline-keeper", 0);
    FILE *list = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!list)
        return -errno;
    end_others(keeper);
    int error = write_list(keeper, list);
    if (!error) {
        snprintf(number, sizeof(number), "%d", fd);
        setenv(FL_KEEPER_ENVIRONMENT, number, 1);
        fl_settings_pass_on(&keeper->settings);
        fl_log_flush();
        become_successor(keeper, executable);
        error = -errno;
        unsetenv(FL_KEEPER_ENVIRONMENT);
        fl_settings_keep(&keeper->settings);
    }
    // Engines are started with an exec, too: they must not get what is the keeper's.
    const struct fl_record *record = NULL;
    while ((record = fl_records_next(&keeper->records, record)) != NULL) {
        for (uint32_t i = 0; i < record->slots; i++) {
            if (record->fd[i] >= 0)
                fcntl(record->fd[i], F_SETFD, FD_CLOEXEC);
        }
    }
    fcntl(keeper->serving->channel, F_SETFD, FD_CLOEXEC);
    if (keeper->serving->life >= 0)
        fcntl(keeper->serving->life, F_SETFD, FD_CLOEXEC);
    fclose(list);
    return error;
}

// --- from an engine that was left alone ---

// Waits for its answer only so long: an engine that hangs must not stop us.
static int first_answer(int channel, int pidfd, struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    struct pollfd watched[2] = {{.fd = channel, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    if (poll(watched, 2, ANSWER_MS) < 1)
        return -ETIMEDOUT;
    if (!watched[0].revents)
        return -ESRCH;
    int got = fl_channel_receive(channel, message, fds, false);
    return got == 0 ? -ECONNRESET : got;
}

// An engine that serves, and what is found out about it.
struct found {
    int socket;  // to the engine, or to its keeper
    int channel; // of the engine: the socket, or what its keeper has sent
    int life;
    int pidfd;
    pid_t pid;
    struct fl_child *child; // when nothing that may fail is left to be done
    bool was_alone;         // it has no keeper: nothing else has what it has sent
    char reason[160];       // why it cannot be had
};

static bool process_lives(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&ended, 1, 0) == 0;
}

// We are told to end before anything is ours.
static bool is_to_end(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

// Its sockets are closed some milliseconds before its end can be seen.
static bool ends_now(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&ended, 1, END_MS) == 1;
}

// All that may fail is done before we say that we have it: to fail later would be to start an
// engine beside it.
static int adopt_found(struct fl_keeper *keeper, struct found *found)
{
    int channel = fcntl(found->channel, F_DUPFD_CLOEXEC, 0);
    int pidfd = channel < 0 ? -1 : fcntl(found->pidfd, F_DUPFD_CLOEXEC, 0);
    if (pidfd < 0) {
        int error = -errno;
        if (channel >= 0)
            close(channel);
        return error;
    }
    int error = adopt_engine(keeper, channel, pidfd, found->pid, &found->child);
    if (error)
        found->child = NULL;
    return error;
}

// Its keeper has sent all, and waits to hear that we have it; we then wait to hear that it has
// stopped. Only then is it ours.
static int confirm(struct found *found)
{
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    message = (struct fl_message){.type = FL_MESSAGE_ANSWER};
    FL_CRASH_POINT("replace_answer");
    if (is_to_end()) {
        snprintf(found->reason, sizeof(found->reason), "this server is told to end");
        return -EINTR;
    }
    int got = fl_channel_send(found->socket, &message, NULL, false);
    if (got == 0)
        got = first_answer(found->socket, found->pidfd, &message, fds);
    if (got == 1)
        fl_channel_close_fds(fds);
    if (got < 0)
        return got;
    return got == 1 && message.type == FL_MESSAGE_REPLACED ? 0 : -ECONNRESET;
}

static int take_from_keeper(struct fl_keeper *keeper, struct found *found,
                            const struct fl_message *message, const int fds[FL_CHANNEL_FDS])
{
    found->channel = fds[FL_ENGINE_SLOT_CHANNEL];
    found->life = fds[FL_ENGINE_SLOT_LIFE];
    keeper->generation = message->value ? message->value - 1 : 0; // counted again as it serves us
    keeper->deaths = message->other;
    keeper->upgrade.count = strtoull(message->text, NULL, 10);
    // Another one is the engine of this channel then.
    if (!process_lives(found->pidfd))
        return -ESRCH;
    int error = found->channel < 0 ? -EPROTO : adopt_found(keeper, found);
    return error ? error : confirm(found);
}

// What came from the store is replaced by the same from the engine, or from its keeper.
static int take_all(struct fl_keeper *keeper, struct found *found)
{
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    for (;;) {
        int got = first_answer(found->socket, found->pidfd, &message, fds);
        if (got != 1)
            return got;
        if (message.type == FL_MESSAGE_SERVING) {
            found->channel = found->socket;
            found->life = fds[0];
            return adopt_found(keeper, found);
        }
        if (message.type == FL_MESSAGE_ENGINE)
            return take_from_keeper(keeper, found, &message, fds);
        FL_CRASH_POINT("replace_record");
        int error = 0;
        found->was_alone |= message.type == FL_MESSAGE_PUT;
        if (message.type == FL_MESSAGE_PUT || message.type == FL_MESSAGE_RECORD)
            error = fl_records_put(&keeper->records, &message, fds);
        fl_channel_close_fds(fds);
        if (error == -ENOMEM)
            return error;
        if (error) // of what this version does not know it can keep nothing
            fl_log(FL_LOG_WARNING,
                   "event=inherit_failed name=%" PRIu32 ".%" PRIu64 " reason=\"%s\"", message.kind,
                   message.id, strerror(-error));
        if (message.type == FL_MESSAGE_ANSWER) {
            snprintf(found->reason, sizeof(found->reason), "%.150s", message.text);
            return message.error ? message.error : -EPROTO;
        }
    }
}

// Under a service manager that keeps descriptors there is nothing to replace.
static bool replaces(const struct fl_keeper *keeper)
{
    return keeper->options->replace && !keeper->records.store;
}

// Says HELLO and gets all. 0, or -errno.
static int ask_for_all(struct fl_keeper *keeper, struct found *found)
{
    static const int log = STDERR_FILENO;
    struct fl_message hello = {.type = FL_MESSAGE_HELLO, .slots = 1, .mask = 1};
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    if (getsockopt(found->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return -errno;
    hello.value = replaces(keeper) ? FL_HELLO_REPLACE : 0;
    int error = fl_channel_send(found->socket, &hello, &log, false); // its log is ours from now on
    if (error)
        return error;
    found->pid = peer.pid;
    found->pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    return found->pidfd < 0 ? -errno : take_all(keeper, found);
}

// What has been taken over has descriptors of its own, but for `life`.
static void close_found(const struct found *found)
{
    close(found->socket);
    if (found->channel >= 0 && found->channel != found->socket)
        close(found->channel);
    if (found->pidfd >= 0)
        close(found->pidfd);
}

// It goes on with the keeper that it has, or alone.
static void leave_found(struct fl_keeper *keeper, const struct found *found)
{
    if (found->child)
        fl_keeper_let_go(keeper, found->child);
    if (found->life >= 0)
        close(found->life);
}

// It is ours now. Where servers replace each other it is a process of another place (a pod), which
// may go at any time: an engine of our own takes over from it as soon as one is ready.
static void take_found(struct fl_keeper *keeper, const struct found *found)
{
    bool elsewhere = found->channel != found->socket;
    take_engine(keeper, found->child, found->life);
    fl_log(FL_LOG_INFO, "event=took_over engine=%d vms=%" PRIu64 " from=%s", (int)found->pid,
           keeper->records.vms, elsewhere ? "keeper" : "engine");
    fl_keeper_served(keeper, keeper->serving, keeper->records.vms);
    if (replaces(keeper))
        fl_keeper_upgrade(keeper, "", 0);
}

// -EBUSY: it has a keeper. That it is dead is no trouble: its socket, which is among what the
// service manager kept, takes connections all the same. One that lives, and that we cannot have
// all of, must be left alone, unless a service manager has kept all: an engine of ours would serve
// a part of its VMs beside it.
static int from_engine(struct fl_keeper *keeper)
{
    char path[PATH_MAX];
    struct found found = {.channel = -1, .life = -1, .pidfd = -1};
    int length = snprintf(path, sizeof(path), "%s" FL_KEEPER_SUFFIX, keeper->options->control);
    found.socket =
        length < (int)sizeof(path) ? fl_socket_connect(path, SOCK_SEQPACKET) : -ENAMETOOLONG;
    if (found.socket < 0)
        return 0;
    int error = ask_for_all(keeper, &found);
    if (error == -ECONNRESET && found.was_alone && ends_now(found.pidfd))
        error = -ESRCH;
    bool alone = keeper->records.store || !process_lives(found.pidfd);
    if (!error)
        take_found(keeper, &found);
    else
        leave_found(keeper, &found);
    close_found(&found);
    if (!error)
        return 0;
    if (error == -ESRCH && found.was_alone) // what it has sent is ours alone
        return 0;
    if (replaces(keeper) &&
        error == -ESRCH) // its keeper has another one serve, and may be asked again
        error = -EAGAIN;
    if (error != -EBUSY && error != -ESRCH)
        fl_log(FL_LOG_WARNING, "event=take_over_failed reason=\"%s\"",
               *found.reason ? found.reason : strerror(-error));
    return error == -EBUSY || !alone || replaces(keeper) ? error : 0;
}

// A server that is being upgraded, or whose engine has just died, can be replaced a little later.
static int from_server(struct fl_keeper *keeper)
{
    uint64_t until = fl_now() + REPLACE_MOST;
    int error;
    while ((error = from_engine(keeper)) == -EAGAIN && replaces(keeper) && fl_now() < until) {
        if (is_to_end())
            return -EINTR;
        fl_records_free(&keeper->records); // what has come of it: all of it comes again
        fl_records_init(&keeper->records, false);
        poll(NULL, 0, REPLACE_AGAIN_MS);
    }
    return error;
}

bool fl_keeper_is_successor(void)
{
    return getenv(FL_KEEPER_ENVIRONMENT) || getenv("LISTEN_FDS");
}

int fl_keeper_inherit(struct fl_keeper *keeper)
{
    bool store = keeper->records.store;
    keeper->records.store = false; // it has them
    int count = fl_sm_inherit(from_manager, keeper);
    if (count > 0)
        fl_log(FL_LOG_INFO, "event=inherited descriptors=%d vms=%" PRIu64, count,
               keeper->records.vms);
    from_exec(keeper);
    keeper->records.store = store;
    return keeper->serving ? 0 : from_server(keeper);
}
