// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_wait.h"

#include "engine/base/crash_point.h"
#include "engine/cache/frame_clock.h"
#include "engine/cache/frame_taken.h"

// The list of waiters is closed with this mark once the frame is READY or FAILED.
#define CLOSED ((struct fl_waiter *)1)

bool fl_frame_leave_waiter(struct fl_frame *frame, struct fl_waiter *waiter)
{
    struct fl_waiter *head = atomic_load(&frame->waiters);
    do {
        if (head == CLOSED)
            return false;
        waiter->next = head;
    } while (!atomic_compare_exchange_weak(&frame->waiters, &head, waiter));
    return true;
}

static void deliver_waiters(struct fl_frame *frame, struct fl_waiter *waiter, int error,
                            struct fl_frame_id failed)
{
    while (waiter) {
        struct fl_waiter *next = waiter->next;
        waiter->frame = NULL;
        waiter->error = error;
        waiter->failed = failed;
        if (!error) {
            fl_frame_seen(frame, waiter->taker);
            atomic_fetch_add(&frame->pins, 1);
            waiter->frame = frame;
        }
        fl_mailbox_post(waiter->box, &waiter->mail);
        waiter = next;
    }
}

// The loading has a pin of its own until all is delivered, so that nothing evicts the frame.
void fl_frame_finish(struct fl_frame *frame, int error, struct fl_frame_id failed)
{
    struct fl_cache *cache = frame->cache;
    fl_rcu_online();
    if (error) {
        fl_frame_table_remove(cache, frame);
        atomic_fetch_add(&cache->counts->failed, 1); // before a waiter hears of it, and looks
    }
    atomic_store_explicit(&frame->state, error ? FL_FRAME_FAILED : FL_FRAME_READY,
                          memory_order_release);
    FL_CRASH_POINT("frame_finished");
    deliver_waiters(frame, atomic_exchange(&frame->waiters, CLOSED), error, failed);
    FL_CRASH_POINT("frame_delivered");
    if (error) {
        fl_frame_set_use(frame, FL_FRAME_COLD);
        fl_rcu_defer(&frame->rcu, fl_frame_free_rcu);
    } else {
        fl_cache_admit(cache, frame);
        fl_frame_unpin(frame);
    }
    fl_rcu_offline();
}
