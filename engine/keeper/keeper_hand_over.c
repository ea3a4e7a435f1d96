// SPDX-License-Identifier: Apache-2.0
//
// What an engine is told when it takes over: each record that the keeper has, and then to serve.
//
// Theory of operation. The child that takes over has a cursor (`next`, `next_slot`); each call
// sends until the channel is full, and the loop calls again when it has room. Records stay the
// keeper's: a message carries copies of their descriptors. After SERVE, `pinged_ns` is set, and
// nothing is sent any more. A VM for which a thread of another engine is still in the kernel is
// sent as held: the new engine serves it only when that thread has come out (fl_keeper_free_held).
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>

#include "engine/base/log.h"

// A thread of another engine, which was killed or has yielded, is still in the kernel for this VM
// and may fill a page of it: two would serve it at once.
static bool is_held(const struct fl_keeper *keeper, const struct fl_record *record)
{
    const struct fl_child *child;
    cds_list_for_each_entry(child, &keeper->children, link)
    {
        if (child != keeper->serving && fl_child_holds(child, record->id))
            return true;
    }
    return false;
}

static void hold_if_busy(const struct fl_keeper *keeper, struct fl_record *record)
{
    record->held = is_held(keeper, record);
    if (record->held)
        fl_log(FL_LOG_WARNING,
               "event=held vm=%" PRIu64
               " reason=\"a thread of the previous engine is in the kernel for it: the VM is "
               "served when the thread comes out\"",
               record->id);
}

void fl_keeper_free_held(struct fl_keeper *keeper)
{
    struct fl_record *record;
    struct fl_child *child = keeper->serving;
    if (!child || child->channel < 0)
        return;
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind)
    {
        struct fl_message freed = {.type = FL_MESSAGE_FREED, .id = record->id};
        if (record->held && !is_held(keeper, record) &&
            fl_channel_send(child->channel, &freed, NULL, false) == 0)
            record->held = false;
    }
}

// Everything, record by record. -EAGAIN: there is no room for more now.
static int send_records(struct fl_keeper *keeper, struct fl_child *child)
{
    while (child->next) {
        struct fl_record_view view = fl_record_view(child->next);
        if (view.kind == FL_RECORD_VM && child->next_slot == 0)
            hold_if_busy(keeper, child->next);
        uint64_t held = view.kind == FL_RECORD_VM && child->next->held ? FL_VM_HELD : 0;
        int error = fl_channel_send_record(child->channel, FL_MESSAGE_RECORD, &view, held,
                                           &child->next_slot, false);
        if (error)
            return error;
        child->next = fl_records_next(&keeper->records, child->next);
        child->next_slot = 0;
    }
    return 0;
}

static int send_serve(const struct fl_keeper *keeper, const struct fl_child *child)
{
    struct fl_message serve = {.type = FL_MESSAGE_SERVE,
                               .id = fl_keeper_room(keeper),
                               .value = keeper->generation + 1,
                               .other = keeper->records.store};
    return fl_channel_send(child->channel, &serve, NULL, false);
}

void fl_keeper_go_on_sending(struct fl_keeper *keeper, struct fl_child *child)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = child};
    if (child->pinged_ns) // SERVE was sent
        return;
    int error = send_records(keeper, child);
    if (!error)
        error = send_serve(keeper, child);
    if (error && error != -EAGAIN) { // its end will be seen, or is brought about here
        fl_log(FL_LOG_ERROR, "event=hand_over_failed pid=%d kind=%u id=%" PRIu64 " reason=\"%s\"",
               (int)child->pid, child->next ? child->next->kind : 0,
               child->next ? child->next->id : 0, strerror(-error));
        fl_child_kill(child);
        return;
    }
    event.events |= error ? EPOLLOUT : 0U;
    epoll_ctl(keeper->epoll_fd, EPOLL_CTL_MOD, child->channel, &event);
    if (error)
        return;
    child->pinged_ns = fl_now();
    fl_keeper_tell_news(keeper);
}
