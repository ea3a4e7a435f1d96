// SPDX-License-Identifier: Apache-2.0
//
// liburcu, QSBR flavour, as the engine uses it. A thread that looks published objects up registers,
// announces a quiescent state once a loop, and goes offline while it blocks. Between two
// announcements everything it has looked up stays valid; nothing else keeps it so.
//
// ThreadSanitizer cannot see into the library, so the edges that the grace period gives are told to
// it here: release before a thread is quiescent or hands an object to call_rcu, acquire where an
// object is looked up or freed.
#ifndef FAULTLINE_BASE_RCU_H
#define FAULTLINE_BASE_RCU_H

#include <stdbool.h>

#include <urcu-qsbr.h>

#include <urcu/rculfhash.h>

#ifdef FAULTLINE_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#else
#define __tsan_acquire(addr) ((void)(addr))
#define __tsan_release(addr) ((void)(addr))
#endif

extern char fl_rcu_edge; // stands for "the grace period" in the edges above

static inline void fl_rcu_quiescent(void)
{
    __tsan_release(&fl_rcu_edge);
    rcu_quiescent_state();
}

static inline void fl_rcu_offline(void)
{
    __tsan_release(&fl_rcu_edge);
    rcu_thread_offline();
}

static inline void fl_rcu_online(void)
{
    rcu_thread_online();
    __tsan_acquire(&fl_rcu_edge);
}

static inline void fl_rcu_defer(struct rcu_head *head, void (*free_fn)(struct rcu_head *))
{
    __tsan_release(&fl_rcu_edge);
    call_rcu(head, free_fn);
}

// The thread in which liburcu frees has all signals blocked, and with SIGSYS blocked a system call
// that is not on the engine's list would end the process (call_filter.c).
extern _Thread_local bool fl_rcu_is_reachable;
void fl_rcu_reach(void);

// First line of every function given to fl_rcu_defer().
static inline void fl_rcu_freeing(void)
{
    if (!fl_rcu_is_reachable)
        fl_rcu_reach();
    __tsan_acquire(&fl_rcu_edge);
}

// After the fields of an object are set and before it is published; and after it was looked up.
#define FL_RCU_PUBLISH(object) __tsan_release(object)
#define FL_RCU_SEEN(object) __tsan_acquire(object)

#endif
