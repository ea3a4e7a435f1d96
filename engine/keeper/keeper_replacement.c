// SPDX-License-Identifier: Apache-2.0
//
// From a keeper to one that runs elsewhere and replaces it, such as in the next pod of a host.
//
// Theory of operation. The new keeper connects to the engine's CONTROL.keeper, and the engine
// passes the socket on (FL_MESSAGE_REPLACE). This keeper then sends every record, and the channel
// to its engine; the engine notices nothing. What it says meanwhile stays in the channel. Two
// keepers must never act on one engine, and one always must:
//
//   old: RECORD..., ENGINE  ->  new: ANSWER      it has all, and touches nothing yet
//   old: REPLACED           ->  new: acts        the old one never acts again
//
// Until it has sent REPLACED the old keeper has lost nothing, and goes on if the new one dies or is
// slow. If the old one dies before, the new one's end of the socket tells it.
//
// The old process then only waits for its end: a supervisor would start it anew, or take its end
// for that of the service, and what it runs in (a pod) may still hold the old engine.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/link/channel.h"

enum { RETRY_MS = 1 };
// Meanwhile the engine may wait for an answer of its keeper's, and VMs that attach wait with it.
#define HAND_ON_MOST (5 * FL_NS_PER_S)

// Returns NULL, or why it cannot be done now. *ret_error: -EAGAIN if it can be tried again.
static const char *why_not(const struct fl_keeper *keeper, int *ret_error)
{
    const struct fl_child *child;
    bool ending = false;
    cds_list_for_each_entry(child, &keeper->children, link) ending |=
        child != keeper->serving && child != keeper->standby;
    bool upgrading =
        keeper->upgrade.state == FL_UPGRADE_STARTING || keeper->upgrade.state == FL_UPGRADE_TRIAL;
    *ret_error = -EPERM;
    if (keeper->records.store)
        return "a service manager keeps its VMs: reload or restart its unit instead";
    if (keeper->stopping || keeper->leaving || keeper->done)
        return "it is stopping";
    *ret_error = -EAGAIN;
    if (upgrading)
        return "it is being upgraded";
    if (ending || keeper->incomplete || !keeper->serving ||
        keeper->serving->phase != FL_CHILD_SERVING)
        return "its engine is being replaced";
    return NULL;
}

static int send_one(int socket, const struct fl_message *message, const int *fds, uint64_t until)
{
    int error;
    while ((error = fl_channel_send(socket, message, fds, false)) == -EAGAIN && fl_now() < until)
        poll(NULL, 0, RETRY_MS);
    return error;
}

static int send_record(int socket, const struct fl_record *record, uint64_t until)
{
    struct fl_record_view view = fl_record_view(record);
    uint32_t from = 0;
    int error;
    while ((error = fl_channel_send_record(socket, FL_MESSAGE_RECORD, &view, 0, &from, false)) ==
               -EAGAIN &&
           fl_now() < until)
        poll(NULL, 0, RETRY_MS);
    return error;
}

static int send_engine(const struct fl_keeper *keeper, int socket, uint64_t until)
{
    const struct fl_child *child = keeper->serving;
    const int fds[FL_ENGINE_SLOTS] = {
        [FL_ENGINE_SLOT_CHANNEL] = child->channel, [FL_ENGINE_SLOT_LIFE] = child->life};
    struct fl_message message = {.type = FL_MESSAGE_ENGINE,
                                 .value = keeper->generation,
                                 .other = keeper->deaths,
                                 .slots = FL_ENGINE_SLOTS,
                                 .mask = 1U << FL_ENGINE_SLOT_CHANNEL};
    if (child->life >= 0)
        message.mask |= 1U << FL_ENGINE_SLOT_LIFE;
    snprintf(message.text, sizeof(message.text), "%" PRIu64, keeper->upgrade.count);
    return send_one(socket, &message, fds, until);
}

static int send_all(struct fl_keeper *keeper, int socket, uint64_t until)
{
    const struct fl_record *record = NULL;
    int error = 0;
    while (!error && (record = fl_records_next(&keeper->records, record)) != NULL)
        error = send_record(socket, record, until);
    FL_CRASH_POINT("hand_on_records");
    return error ? error : send_engine(keeper, socket, until);
}

// 0 when the new keeper says that it has all. If our engine ends meanwhile, its VMs wait for us.
static int wait_for_answer(const struct fl_keeper *keeper, int socket, uint64_t until)
{
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    struct timespec left = fl_until(fl_now(), until);
    struct pollfd watched[2] = {{.fd = socket, .events = POLLIN},
                                {.fd = keeper->serving->pidfd, .events = POLLIN}};
    if (ppoll(watched, 2, &left, NULL) < 1)
        return -ETIMEDOUT;
    if (watched[1].revents)
        return -ESRCH;
    int got = fl_channel_receive(socket, &message, fds, false);
    if (got == 1)
        fl_channel_close_fds(fds);
    if (got == 1 && message.type == FL_MESSAGE_ANSWER)
        return message.error;
    return got < 0 ? got : -ECONNRESET;
}

static int hand_on(struct fl_keeper *keeper, int socket)
{
    struct fl_message replaced = {.type = FL_MESSAGE_REPLACED};
    uint64_t until = fl_now() + HAND_ON_MOST;
    int error = send_all(keeper, socket, until);
    if (!error)
        error = wait_for_answer(keeper, socket, until);
    FL_CRASH_POINT("hand_on_answered");
    return error ? error : send_one(socket, &replaced, NULL, until);
}

void fl_keeper_hand_on(struct fl_keeper *keeper, int socket)
{
    if (socket < 0)
        return;
    struct fl_message refusal = {.type = FL_MESSAGE_ANSWER};
    const char *reason = why_not(keeper, &refusal.error);
    if (reason) {
        snprintf(refusal.text, sizeof(refusal.text), "%s", reason);
        fl_channel_send(socket, &refusal, NULL, false);
        close(socket);
        return;
    }
    int error = hand_on(keeper, socket);
    close(socket);
    if (error) {
        fl_log(FL_LOG_WARNING,
               "event=hand_on_failed reason=\"the new keeper did not take all: %s\"",
               strerror(-error));
        return;
    }
    fl_log(FL_LOG_INFO, "event=replaced pid=%d vms=%" PRIu64 " reason=\"another keeper has all\"",
           (int)getpid(), keeper->records.vms);
    fl_keeper_set_ready(keeper, false);
    keeper->replaced = true;
    keeper->done = true;
}

void fl_keeper_wait_for_end(void)
{
    sigset_t set;
    int number = SIGCHLD;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    do {
        while (waitpid(-1, NULL, WNOHANG) > 0) // engines that we started
            ;
        number = sigwaitinfo(&set, NULL);
    } while (number == SIGCHLD || (number < 0 && errno == EINTR));
}
