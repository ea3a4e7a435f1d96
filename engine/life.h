// SPDX-License-Identifier: Apache-2.0
//
// How the keeper learns at once that an engine has died, however much memory it had.
//
// A process is reported dead when its memory has been freed, which takes a second for ten GiB of
// cache; VMs would wait for it. But the kernel gives up the robust mutexes of each thread before it
// frees anything (exit_mm_release() in kernel/fork.c, Linux 6.18): each thread of the engine that
// touches VMs, or speaks to the keeper, holds one, in memory that it shares with the keeper. When
// all have been given up, nothing of the engine runs any more.
#ifndef FAULTLINE_ENGINE_LIFE_H
#define FAULTLINE_ENGINE_LIFE_H

struct fl_life;

// Engine: for that many threads (at most FL_LIFE_THREADS), with the memfd that the keeper is to
// have. -ENOMEM, -EMFILE, -EINVAL ...
enum { FL_LIFE_THREADS = 1025 };
int fl_life_new(unsigned threads, int *ret_fd, struct fl_life **ret_life);
// Engine: each thread once; it holds its own mutex from now on.
void fl_life_begin(struct fl_life *life, unsigned thread);

// Keeper: a descriptor that is readable once all threads have given up theirs, close-on-exec, or
// -errno: -EPROTONOSUPPORT if it is of another version. All must have begun. Starts a thread that
// ends with them.
int fl_life_watch(int fd);

#endif
