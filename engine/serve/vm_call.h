// SPDX-License-Identifier: Apache-2.0
//
// Calls of the kernel into a VM's memory, which may wait for that VM's own troubles: a thread
// that fills a page reclaims for the cgroup that pays for it, waits for a lock that a thread of the
// VMM holds, or frees all of a VM that was killed meanwhile. (UFFDIO_WAKE and the reading of
// messages do not wait: fs/userfaultfd.c, Linux 6.18.)
//
// A thread says when it is within such a call. One that is for long is taken everything from but
// that VM (lane.h): then fl_call_end() does not return, and the thread begins anew, as what runs
// the VM's lane, and with nothing of what was on its stack. The VM is to it what a dead
// predecessor's is. So within a call, and at its end, a thread has no lock, no memory and no
// descriptor that only its stack knows of; what it must keep until then is said here.
//
// The thread is no RCU reader while it is within a call: nothing that was looked up before may be
// used behind it.
#ifndef FAULTLINE_SERVE_VM_CALL_H
#define FAULTLINE_SERVE_VM_CALL_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/sleeper.h"

struct fl_frame;
struct fl_presence_kind;
struct fl_presence_look;
struct fl_presence_run;
struct fl_vm;

// Moves: NONE -> IN -> NONE by the thread itself. IN -> TAKING by the lanes' watcher, TAKING ->
// TAKEN by the thread that goes on with the worker, TAKEN -> NONE by the thread itself, in the
// lane. IN -> HELD and TAKEN -> HELD by the control thread when it yields, for good: the thread
// ends with the process.
enum fl_call_state { FL_CALL_NONE, FL_CALL_IN, FL_CALL_TAKING, FL_CALL_TAKEN, FL_CALL_HELD };
enum { FL_CALL_STATES = 8 };

// Of one thread. What is not atomic belongs to it, and while its call is TAKING to the thread that
// goes on with the worker.
struct fl_call {
    _Atomic uint64_t word;      // FL_CALL_STATES times the number of the call, plus the state
    _Atomic uint64_t *shared;   // the VM's id, for the keeper (death_watch.h)
    struct fl_sleeper *watcher; // sleeps while no thread is within a call; constant
    struct fl_vm *vm;
    struct fl_frame *source; // pinned while its bytes are copied; NULL: none
    uint64_t filled;         // bytes that this call, or the last one, has put into the VM
    jmp_buf anew;            // where the thread goes on when it was taken from
};

static inline enum fl_call_state fl_call_state(uint64_t word)
{
    return (enum fl_call_state)(word % FL_CALL_STATES);
}

// Owner only. Between the two: one ioctl, or a few.
struct fl_call *fl_call_begin(struct fl_vm *vm);
// May not return.
void fl_call_end(struct fl_call *call);

// Owner only. The frame that was just looked up, or that a park has pinned, stays as it is until
// fl_call_unpin(), or until the thread has begun anew. False if it was evicted.
bool fl_call_pin(struct fl_vm *vm, const struct fl_frame *frame);
void fl_call_unpin(struct fl_vm *vm);

// Owner only. Those of uffd.h, as calls of a VM.
int fl_vm_copy(struct fl_vm *vm, uint64_t to, const void *from, uint64_t bytes, bool wake,
               uint64_t *ret_done);
int fl_vm_zero(struct fl_vm *vm, uint64_t to, uint64_t bytes, bool wake, uint64_t *ret_done);
int fl_vm_poison(struct fl_vm *vm, uint64_t to, uint64_t bytes);
int fl_vm_unregister(struct fl_vm *vm, uint64_t start, uint64_t bytes);
int fl_vm_unprotect(struct fl_vm *vm, uint64_t start, uint64_t bytes);
int fl_vm_protect(struct fl_vm *vm, uint64_t start, uint64_t bytes);
int fl_vm_register_protect(struct fl_vm *vm, uint64_t start, uint64_t bytes);
int fl_vm_continue(struct fl_vm *vm, uint64_t start, uint64_t bytes);
bool fl_vm_alive(struct fl_vm *vm);
bool fl_vm_removing(struct fl_vm *vm);
bool fl_vm_registered(struct fl_vm *vm, uint64_t address);
// Only of an address that is registered with some userfaultfd.
bool fl_vm_owns(struct fl_vm *vm, uint64_t address);
// Control thread, before a worker has it: finds out whether its pages can be looked at.
void fl_vm_find_presence(struct fl_vm *vm);
// Owner only. Those of presence.h: they wait for the VM's mmap lock. 1: some page of it is absent;
// 0: none is.
int fl_vm_any_absent(struct fl_vm *vm, uint64_t start, uint64_t bytes);
// How many of so many pages of 4 KiB were written to (fl_presence_written()).
int fl_vm_written(struct fl_vm *vm, uint64_t start, uint64_t pages, uint64_t *ret_written);
int fl_vm_present_runs(struct fl_vm *vm, uint64_t start, uint64_t end,
                       struct fl_presence_run *ret_runs, size_t room, uint64_t *ret_looked);
int fl_vm_look(struct fl_vm *vm, struct fl_presence_look *look);
int fl_vm_open_memory(struct fl_vm *vm);
int fl_vm_read(struct fl_vm *vm, int memory, const struct fl_presence_kind *runs, size_t count,
               void *to);

#endif
