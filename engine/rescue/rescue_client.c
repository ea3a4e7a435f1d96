// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/rescue_client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/unix_socket.h"
#include "engine/link/channel.h"

enum { PATIENCE_MS = 60000 }; // an image may have to be opened on a slow disk

static int wait_for_answer(int channel, char *ret_reason, size_t size)
{
    struct fl_message answer;
    int fds[FL_CHANNEL_FDS];
    struct pollfd poll_fd = {.fd = channel, .events = POLLIN};
    if (poll(&poll_fd, 1, PATIENCE_MS) != 1) {
        snprintf(ret_reason, size, "the server does not answer");
        return -ETIMEDOUT;
    }
    int got = fl_channel_receive(channel, &answer, fds, false);
    if (got == 1)
        fl_channel_close_fds(fds);
    if (got != 1 || answer.type != FL_MESSAGE_ANSWER) {
        snprintf(ret_reason, size, "the server has hung up");
        return -ECONNRESET;
    }
    if (answer.error)
        snprintf(ret_reason, size, "%s", answer.text);
    return answer.error;
}

static int ask(const char *control_path, enum fl_message_type type,
               const struct fl_rescue_request *request, char *ret_reason, size_t size)
{
    char path[PATH_MAX];
    int fds[FL_CHANNEL_FDS] = {[FL_VM_STATE] = request->state_fd,
                               [FL_VM_UFFD] = request->uffd,
                               [FL_VM_PIDFD] = request->pidfd};
    struct fl_message message = {
        .type = type,
        .value = request->kill ? FL_RESCUE_KILL : 0,
        .slots = FL_VM_SLOTS,
        .mask =
            1U << FL_VM_STATE | 1U << FL_VM_UFFD | (request->pidfd >= 0 ? 1U << FL_VM_PIDFD : 0),
    };
    int length = snprintf(path, sizeof(path), "%s" FL_KEEPER_SUFFIX, control_path);
    int channel =
        length < (int)sizeof(path) ? fl_socket_connect(path, SOCK_SEQPACKET) : -ENAMETOOLONG;
    if (channel < 0) {
        snprintf(ret_reason, size, "no server listens at %s: %s", control_path, strerror(-channel));
        return -ENOTCONN;
    }
    int error = fl_channel_send(channel, &message, fds, false);
    if (error)
        snprintf(ret_reason, size, "the server cannot be told: %s", strerror(-error));
    else
        error = wait_for_answer(channel, ret_reason, size);
    close(channel);
    return error;
}

int fl_rescue_send(const char *control_path, const struct fl_rescue_request *request,
                   char *ret_reason, size_t size)
{
    return ask(control_path, FL_MESSAGE_ADOPT, request, ret_reason, size);
}

int fl_rescue_ask(const char *control_path, const struct fl_rescue_request *request,
                  char *ret_reason, size_t size)
{
    return ask(control_path, FL_MESSAGE_MAY_ADOPT, request, ret_reason, size);
}
