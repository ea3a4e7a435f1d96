// SPDX-License-Identifier: Apache-2.0
//
// Reading /proc: what the doctor needs of it. Processes come and go meanwhile, so every call may
// fail with -ENOENT or -ESRCH: that is no error of the host. Any thread.
#ifndef FAULTLINE_HOST_PROCFS_H
#define FAULTLINE_HOST_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/host/region.h"

// Calls fn with each number that names an entry of the directory ("/proc", "/proc/7/fd"); stops at
// its first non-zero result and returns it. -errno if the directory cannot be read.
int fl_proc_each(const char *directory, int (*fn)(void *arg, int number), void *arg);

// The file's first size - 1 bytes, NUL-terminated. Bytes, or -errno.
ssize_t fl_proc_read(const char *path, char *buf, size_t size);
// The link's target, NUL-terminated, cut at size - 1. 0 or -errno.
int fl_proc_link(const char *path, char *buf, size_t size);

// The number after the first "KEY" in text, in base 10 or 16 by its form; false if there is none.
bool fl_proc_number(const char *text, const char *key, uint64_t *ret_number);

// The process's name as the kernel has it; "?" if it is gone. FL_PROC_NAME bytes hold each.
enum { FL_PROC_NAME = 20 };
void fl_proc_name(pid_t pid, char *buf, size_t size);

// What a task is doing, by its directory ("/proc/7", "/proc/7/task/8").
struct fl_proc_task {
    pid_t parent;     // its process's
    char state;       // S, D, Z ...
    bool kernel;      // it is the kernel's own, and has no memory
    bool exiting;     // it is on its way out, or a zombie
    uint64_t started; // in clock ticks after boot: with its number, its identity
};
int fl_proc_task(const char *task_path, struct fl_proc_task *ret_task);
// How often it has left a processor, waiting or not. Unchanged, it has slept all the time. False if
// that cannot be read.
bool fl_proc_switches(const char *task_path, uint64_t *ret_switches);
// The process that traces it, 0: none.
pid_t fl_proc_tracer(pid_t pid);
// True if it was killed, or ends, and only waits for the kernel: it runs no program any more.
bool fl_proc_is_ending(pid_t pid);
// True if the thread was killed, or ends, and so does not need what it waits for. False as well if
// that cannot be seen.
bool fl_proc_is_killed(pid_t tid);
// A task of the process that has its memory and its descriptors: the first one, or another if that
// has ended before them. -ESRCH: none has (any more).
int fl_proc_live_task(pid_t pid, pid_t *ret_tid);

// How much of the host's processes /proc shows.
enum fl_proc_view {
    FL_PROC_ALL,
    FL_PROC_PART,  // those of our PID namespace, which is not the host's
    FL_PROC_OTHER, // those of a PID namespace that is not ours: its numbers mean others to us
};
enum fl_proc_view fl_proc_view(void);

// A piece of memory that is registered with a userfaultfd for missing pages ("um" in smaps).
struct fl_proc_range {
    uint64_t start;
    uint64_t bytes;
    uint64_t page_bytes;
    bool shared;      // with other processes that map it
    bool file;        // of a file, or a memfd
    bool transparent; // a fault in it may bring a transparent huge page
    bool unreserved;  // mapped with MAP_NORESERVE
};
// Calls fn with each; stops at its first non-zero result and returns it. -errno if they cannot be
// read.
int fl_proc_each_registered(pid_t pid, int (*fn)(void *arg, const struct fl_proc_range *range),
                            void *arg);
bool fl_proc_has_uffd_memory(pid_t pid);

// True if the process has nothing mapped where the regions are. False if that cannot be read.
bool fl_proc_unmapped(pid_t pid, const struct fl_layout *layout);

#endif
