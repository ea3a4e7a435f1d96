// SPDX-License-Identifier: Apache-2.0
//
// How the keeper learns at once that an engine has died, however much memory it had, and for which
// VMs it cannot be replaced yet.
//
// A process is reported dead when its memory has been freed, which takes a second for ten GiB of
// cache; VMs would wait for it. But the kernel gives up the robust mutexes of each thread before it
// frees anything (exit_mm_release() in kernel/fork.c, Linux 6.18): each thread of the engine that
// touches VMs, or speaks to the keeper, holds one, in memory that it shares with the keeper. When
// all have been given up, nothing of the engine runs any more.
//
// A thread that is killed within a call of the kernel ends when that call does, which the VM it is
// for may hold up (vm_call.h). So each thread also says for which VM it is within a call: that VM
// must wait, as the call may still fill a page; the others need not.
//
// The table is the engine's, in a memfd: each thread writes its own slot, the keeper reads them
// all. A watch is the keeper's: its loop and the thread that waits have a reference each, and the
// last one frees it. It is over once, and never again not over.
#ifndef FAULTLINE_LINK_DEATH_WATCH_H
#define FAULTLINE_LINK_DEATH_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fl_life_table;
struct fl_death_watch;

// Engine: the slots of its threads, in a memfd that the keeper is to have. -ENOMEM, -EMFILE ...
// The last slot is that of the thread of the file door.
enum { FL_LIFE_TABLE_THREADS = 1281, FL_LIFE_TABLE_FILES = FL_LIFE_TABLE_THREADS - 1 };
int fl_life_table_new(int *ret_fd, struct fl_life_table **ret_life);
// Engine: each thread once; it holds its own mutex from now on. Slot 0, the control thread's,
// begins first.
void fl_life_table_join(struct fl_life_table *life, unsigned thread);
// Engine: where that thread writes the id of the VM that it is within a call for; 0: it is not.
_Atomic uint64_t *fl_life_table_call(struct fl_life_table *life, unsigned thread);

// Keeper: -errno: -EPROTONOSUPPORT if it is of another version. Starts a thread that ends with
// those that it watches. The caller keeps the memfd.
int fl_death_watch_start(int fd, struct fl_death_watch **ret_watch);
void fl_death_watch_stop(struct fl_death_watch *watch);
// Readable from the moment on when it is over; and there is a new edge whenever less is held.
int fl_death_watch_event_fd(const struct fl_death_watch *watch);
// Each of its threads has ended, or was killed within a call for one VM, and ends with that.
bool fl_death_watch_is_over(const struct fl_death_watch *watch);
// A thread of it that has not ended is within a call for this VM.
bool fl_death_watch_holds(const struct fl_death_watch *watch, uint64_t vm);

#endif
