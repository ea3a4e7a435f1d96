// SPDX-License-Identifier: Apache-2.0
//
// The keeper's descriptors. It holds all that VMs need, and cannot hold more than the limit of open
// files: it says how much room there is, so that no engine takes what cannot be kept, and keeps
// some places for the next standby.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "engine/base/descriptors.h"
#include "engine/base/log.h"
#include "engine/keeper/keeper_internal.h"

enum {
    // Of the keeper's own beside records and what it had when it started: its loop's, two engines'
    // (a third one's while it is upgraded), and those that are reserved.
    OWN = 24,
    OF_A_VM = 4, // that a connection may become
    TO_TRY_AGAIN = 64,
};

void fl_keeper_reserve(struct fl_keeper *keeper)
{
    while (keeper->reserved < FL_KEEPER_RESERVE) {
        int fd = fcntl(keeper->epoll_fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return;
        keeper->reserve[keeper->reserved++] = fd;
    }
}

void fl_keeper_unreserve(struct fl_keeper *keeper)
{
    while (keeper->reserved > 0)
        close(keeper->reserve[--keeper->reserved]);
}

uint64_t fl_keeper_room(const struct fl_keeper *keeper)
{
    uint64_t taken = keeper->at_start + OWN + keeper->records.descriptors +
                     keeper->records.connections * OF_A_VM;
    uint64_t limit = fl_descriptors_limit();
    return 1 + (limit > taken ? limit - taken : 0);
}

void fl_keeper_lost(struct fl_keeper *keeper, struct fl_child *child,
                    const struct fl_message *message)
{
    struct fl_message answer = {
        .type = FL_MESSAGE_KEPT, .id = message->id, .error = -EMFILE, .value = 1};
    if (keeper->serving != child || message->type != FL_MESSAGE_PUT)
        return;
    if (!keeper->incomplete)
        fl_log(FL_LOG_ERROR,
               "event=put_failed kind=%u id=%llu reason=\"the limit of open files, %u, is "
               "reached\"",
               message->kind, (unsigned long long)message->id, fl_descriptors_limit());
    keeper->incomplete = true;
    if (message->other)
        fl_channel_send(child->channel, &answer, NULL, false);
}

void fl_keeper_complete(struct fl_keeper *keeper)
{
    struct fl_child *child = keeper->serving;
    if (!keeper->incomplete || !child || child->phase != FL_CHILD_SERVING ||
        !fl_descriptors_free(TO_TRY_AGAIN))
        return;
    keeper->incomplete = false;
    fl_keeper_send(child, FL_MESSAGE_AGAIN, 0);
}
