// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with the userfaultfds of this host: who holds each, whose memory it is, who waits
// on it, and since when. Reads /proc only, so that it works on a host on which everything else
// hangs, and whoever the handler is. Needs root for other users' processes. Any thread; takes as
// long as the host has processes.
#ifndef FAULTLINE_ENGINE_DOCTOR_H
#define FAULTLINE_ENGINE_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/vm_state.h"

enum { FL_DOCTOR_NAME = 20, FL_DOCTOR_STACK = 256 };

// A task that sleeps in handle_userfault, or one that cannot end (struct fl_diagnosis, dying).
struct fl_waiting_task {
    pid_t pid; // its process
    pid_t tid;
    bool kernel; // a kernel worker (KVM's asynchronous page faults): no signal can end its wait
    char state;  // as in /proc/PID/stat: S (killable), D (not)
    char name[FL_DOCTOR_NAME];
    int64_t waiting_ms;          // since it last ran; -1 if the kernel does not say
    char stack[FL_DOCTOR_STACK]; // innermost first, "a < b < c"; empty without root
    pid_t vm;                    // for whose memory it waits; 0: for one of several
    bool unexplained; // no userfaultfd that a process holds has its fault: nobody can answer it
};

struct fl_uffd_holder {
    pid_t pid;
    pid_t parent;
    int fd;
    char name[FL_DOCTOR_NAME];
    bool stopped; // by a signal or a debugger
};

enum fl_verdict {
    FL_VERDICT_OK,      // nobody has waited for long
    FL_VERDICT_STUCK,   // somebody has, though another process holds it to serve it
    FL_VERDICT_ORPHAN,  // somebody waits, and nobody but the VM itself holds it: the fault handler
                        // is gone
    FL_VERDICT_UNKNOWN, // somebody may wait, and it cannot be said whose memory it is
};

struct fl_uffd_case {
    uint64_t inode;      // identity on this host
    uint64_t pending;    // faults that nobody has read
    uint64_t unresolved; // faults that were read, and are not resolved
    size_t holders;
    struct fl_uffd_holder *holder;
    pid_t vm;  // the process whose memory it is; 0: unknown
    int vm_fd; // its number there, -1 if it does not hold it (any more)
    bool kvm;  // it has a KVM guest
    char vm_name[FL_DOCTOR_NAME];
    char image[FL_IMAGE_NAME_BYTES]; // that a Faultline kept of it; empty: none
    size_t tasks;                    // of the VM that wait
    int64_t waiting_ms;              // the longest of them, -1 if unknown or none
    enum fl_verdict verdict;
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
    bool complete; // false: not all processes could be read (not root)
    bool healthy;
};

// `patience_ms`: how long a fault may wait before it is trouble. -ENOMEM, or -errno if /proc cannot
// be read.
int fl_diagnose(int64_t patience_ms, struct fl_diagnosis *ret_diagnosis);
void fl_diagnosis_free(struct fl_diagnosis *diagnosis);

// Whether the task may be one of those whose faults the userfaultfd has.
bool fl_doctor_may_wait(const struct fl_waiting_task *task, const struct fl_uffd_case *uffd);

const char *fl_verdict_name(enum fl_verdict verdict);

#endif
