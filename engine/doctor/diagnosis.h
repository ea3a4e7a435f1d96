// SPDX-License-Identifier: Apache-2.0
//
// A diagnosis: the userfaultfds and the FUSE connections of a host, the tasks that wait on them,
// and what is wrong. doctor.h makes one. Pure functions, any thread.
#ifndef FAULTLINE_DOCTOR_DIAGNOSIS_H
#define FAULTLINE_DOCTOR_DIAGNOSIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/host/fuse_mount.h"
#include "engine/host/procfs.h"
#include "engine/vm/vm_state.h"

enum { FL_DOCTOR_STACK = 256, FL_DOCTOR_PATH = 4096 };

// A task that sleeps in handle_userfault, or for a server of files, or one that cannot end (struct
// fl_diagnosis, dying).
struct fl_waiting_task {
    pid_t pid; // its process
    pid_t tid;
    bool kernel; // a kernel worker (KVM's asynchronous page faults): no signal can end its wait
    char state;  // as in /proc/PID/stat: S (killable), D (not)
    char name[FL_PROC_NAME];
    uint64_t started;   // with its tid, its identity
    uint64_t switches;  // how often it has left a processor: unchanged, it is the same wait
    bool moved;         // it was not seen to wait through two looks
    int64_t waiting_ms; // since it last ran, or was first seen so; -1 if that is not known
    char stack[FL_DOCTOR_STACK]; // innermost first, "a < b < c"; empty without root
    pid_t vm;                    // for whose memory it waits; 0: for one of several
    bool unexplained; // no userfaultfd that a process holds has its fault: no process can answer it
    unsigned connection; // of FUSE, for which it waits; 0: none, or one of several
};

struct fl_uffd_holder {
    pid_t pid;
    pid_t parent;
    int fd;
    char name[FL_PROC_NAME];
    bool stopped; // by a signal or a debugger
    pid_t tracer; // the debugger, 0: none
};

// Each is about a task that has waited for too long, one and the same fault all the time.
enum fl_verdict {
    FL_VERDICT_OK,      // there is none
    FL_VERDICT_STUCK,   // though another process holds it to serve it
    FL_VERDICT_ORPHAN,  // and only the VM itself holds it: the fault handler is gone
    FL_VERDICT_UNKNOWN, // it cannot be said whose memory it is, or for which of several it waits
};

struct fl_uffd_case {
    uint64_t inode;      // identity on this host
    uint64_t pending;    // faults that no process has read
    uint64_t unresolved; // faults that were read, and are not resolved
    uint64_t answered;   // of those, so many are not always there: the handler works
    bool removes;        // the VM tells what its guest gives back (EVENT_REMOVE)
    size_t holders;
    struct fl_uffd_holder *holder;
    pid_t vm;  // the process whose memory it is; 0: unknown
    int vm_fd; // its number there, -1 if it does not hold it (any more)
    bool kvm;  // it has a KVM guest
    char vm_name[FL_PROC_NAME];
    char image[FL_IMAGE_NAME_BYTES]; // that a Faultline kept of it; empty: none
    uint64_t kept_id;                // its number there; 0: none was kept
    uint64_t left_protected;         // pages of 4 KiB that a capture has left write-protected
    size_t tasks;                    // of the VM that wait
    size_t still;                    // those of them that have not moved
    int64_t waiting_ms;              // the longest of these, -1 if there is none
    enum fl_verdict verdict;
};

// A FUSE connection: a file system that a process serves, by way of /dev/fuse.
struct fl_fuse_case {
    unsigned connection;           // its number below /sys/fs/fuse/connections
    char type[FL_FUSE_TYPE_BYTES]; // of its file system; empty: we see no mount of it
    char path[FL_DOCTOR_PATH];     // where that is mounted
    bool ours;                     // images of a Faultline
    int waiting;    // requests that the kernel has no answer to; -1: it does not tell (fusectl)
    size_t holders; // that are known: before Linux 6.16 those of Faultline alone
    struct fl_uffd_holder *holder;
    size_t tasks;       // that wait for it, as far as is known
    int64_t waiting_ms; // the longest of these that has not moved, -1 if there is none
    enum fl_verdict verdict;
};

// What a checkpoint has left that was killed with all that guards it.
struct fl_left_meeting {
    pid_t pid; // in whose root directory the path is; 0: in ours
    char name[FL_PROC_NAME];
    char path[FL_DOCTOR_PATH]; // of the directory
    bool waits;                // a task of the process waits in open() of the FIFO there, for ever
};

struct fl_diagnosis {
    size_t cases;
    struct fl_uffd_case *uffd;
    size_t tasks;
    struct fl_waiting_task *task;
    size_t kernel_tasks; // kernel workers among them
    size_t unexplained;  // tasks that have waited too long, and are so
    // Processes that were killed, whose memory and descriptors are gone, and that cannot end: of
    // each the task that does not, and where it sleeps.
    size_t dyings;
    struct fl_waiting_task *dying;
    size_t fuses;
    struct fl_fuse_case *fuse;
    size_t fuse_tasks; // tasks that wait for one
    struct fl_waiting_task *fuse_task;
    size_t left_count;
    struct fl_left_meeting *left;
    size_t stopped; // holders that are stopped, though no task waits yet
    enum fl_proc_view view;
    bool complete; // false: not all processes could be read (not root), or /proc does not show all
    bool healthy;
};

// Frees what it owns, and leaves it empty.
void fl_diagnosis_free(struct fl_diagnosis *diagnosis);

// Faults that wait, read or not.
static inline uint64_t fl_uffd_case_faults(const struct fl_uffd_case *uffd)
{
    return uffd->pending + uffd->unresolved;
}

// True for a holder that is stopped and serves, or keeps, memory that is not its own.
bool fl_doctor_is_stopped(const struct fl_uffd_case *uffd, const struct fl_uffd_holder *holder);
// True if a process holds the connection that runs, and is no service manager that only keeps it.
bool fl_doctor_fuse_is_served(const struct fl_fuse_case *fuse);
// Whether another process than the VM holds it.
bool fl_doctor_is_served(const struct fl_uffd_case *uffd);

// Whether the task may be one of those whose faults the userfaultfd has.
bool fl_doctor_may_wait(const struct fl_waiting_task *task, const struct fl_uffd_case *uffd);

const char *fl_verdict_name(enum fl_verdict verdict);

#endif
