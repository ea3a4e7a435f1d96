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

static int wait_for_answer(int channel, struct fl_error *ret_error)
{
    struct fl_message answer;
    int fds[FL_CHANNEL_FDS];
    struct pollfd poll_fd = {.fd = channel, .events = POLLIN};
    if (poll(&poll_fd, 1, PATIENCE_MS) != 1)
        return fl_fail_plain(ret_error, -ETIMEDOUT, "the server does not answer");
    int got = fl_channel_receive(channel, &answer, fds, false);
    if (got == 1)
        fl_channel_close_fds(fds);
    if (got != 1 || answer.type != FL_MESSAGE_ANSWER)
        return fl_fail_plain(ret_error, -ECONNRESET, "the server closed the connection");
    if (answer.error)
        fl_fail_plain(ret_error, answer.error, "%s", answer.text);
    return answer.error;
}

static int ask_server(const char *control_path, enum fl_message_type type,
                      const struct fl_rescue_request *request, struct fl_error *ret_error)
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
    if (channel < 0)
        return fl_fail_plain(ret_error, -ENOTCONN, "no server listens at %s: %s", control_path,
                             fl_socket_why(path, channel));
    int error = fl_channel_send(channel, &message, fds, false);
    if (error)
        fl_fail(ret_error, error, "the request cannot be sent to the server");
    else
        error = wait_for_answer(channel, ret_error);
    close(channel);
    return error;
}

int fl_rescue_send(const char *control_path, const struct fl_rescue_request *request,
                   struct fl_error *ret_error)
{
    return ask_server(control_path, FL_MESSAGE_ADOPT, request, ret_error);
}

int fl_rescue_ask(const char *control_path, const struct fl_rescue_request *request,
                  struct fl_error *ret_error)
{
    return ask_server(control_path, FL_MESSAGE_MAY_ADOPT, request, ret_error);
}
