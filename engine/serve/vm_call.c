// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/vm_call.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "engine/host/presence.h"
#include "engine/host/uffd.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

#define TAKING_PAUSE (50 * FL_NS_PER_US)

struct fl_call *fl_call_begin(struct fl_vm *vm)
{
    struct fl_call *call = fl_shard_call(vm->owner);
    uint64_t before = atomic_load_explicit(&call->word, memory_order_relaxed);
    call->vm = vm;
    call->filled = 0;
    atomic_store_explicit(call->shared, vm->id, memory_order_relaxed);
    atomic_store_explicit(&call->word, before + FL_CALL_STATES + FL_CALL_IN, memory_order_release);
    // A full barrier, also for the watcher: either it sees the call before it sleeps, or we see
    // that it sleeps.
    fl_rcu_offline();
    fl_sleeper_notice(call->watcher);
    FL_CRASH_POINT("vm_call");
    return call;
}

static void pause_for(uint64_t ns)
{
    struct timespec time = {.tv_nsec = (long)ns};
    nanosleep(&time, NULL);
}

// Another thread goes on with all that we had, but for this VM.
static _Noreturn void call_begin_anew(struct fl_call *call)
{
    uint64_t word = atomic_load(&call->word);
    while (fl_call_state(word) != FL_CALL_TAKEN ||
           !atomic_compare_exchange_strong(&call->word, &word, word - FL_CALL_TAKEN)) {
        pause_for(TAKING_PAUSE); // if it is HELD, until the process ends
        word = atomic_load(&call->word);
    }
    if (call->source)
        fl_frame_unpin(call->source);
    call->source = NULL;
    atomic_store(call->shared, 0);
    fl_rcu_online();
    longjmp(call->anew, 1);
}

void fl_call_end(struct fl_call *call)
{
    uint64_t word = atomic_load_explicit(&call->word, memory_order_relaxed);
    if (fl_call_state(word) != FL_CALL_IN ||
        !atomic_compare_exchange_strong(&call->word, &word, word - FL_CALL_IN))
        call_begin_anew(call);
    atomic_store_explicit(call->shared, 0, memory_order_relaxed);
    fl_rcu_online();
}

bool fl_call_pin(struct fl_vm *vm, const struct fl_frame *frame)
{
    struct fl_call *call = fl_shard_call(vm->owner);
    // NOLINTNEXTLINE(clang-diagnostic-cast-qual): its pins are not what is constant
    struct fl_frame *pinned = (struct fl_frame *)(uintptr_t)frame;
    if (!fl_frame_pin(pinned))
        return false;
    call->source = pinned;
    return true;
}

void fl_call_unpin(struct fl_vm *vm)
{
    struct fl_call *call = fl_shard_call(vm->owner);
    fl_frame_unpin(call->source);
    call->source = NULL;
}

// --- the calls ---

int fl_vm_copy(struct fl_vm *vm, uint64_t to, const void *from, uint64_t bytes, bool wake,
               uint64_t *ret_done)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_copy(vm->uffd, to, from, bytes, wake, ret_done);
    call->filled = *ret_done;
    fl_call_end(call);
    return error;
}

int fl_vm_zero(struct fl_vm *vm, uint64_t to, uint64_t bytes, bool wake, uint64_t *ret_done)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_zero(vm->uffd, to, bytes, wake, ret_done);
    call->filled = *ret_done;
    fl_call_end(call);
    return error;
}

int fl_vm_poison(struct fl_vm *vm, uint64_t to, uint64_t bytes)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_poison(vm->uffd, to, bytes);
    fl_call_end(call);
    return error;
}

int fl_vm_unregister(struct fl_vm *vm, uint64_t start, uint64_t bytes)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_unregister(vm->uffd, start, bytes);
    fl_call_end(call);
    return error;
}

int fl_vm_unprotect(struct fl_vm *vm, uint64_t start, uint64_t bytes)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_unprotect(vm->uffd, start, bytes);
    fl_call_end(call);
    return error;
}

int fl_vm_protect(struct fl_vm *vm, uint64_t start, uint64_t bytes)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_protect(vm->uffd, start, bytes);
    fl_call_end(call);
    return error;
}

int fl_vm_register_protect(struct fl_vm *vm, uint64_t start, uint64_t bytes)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_register_protect(vm->uffd, start, bytes);
    fl_call_end(call);
    return error;
}

int fl_vm_continue(struct fl_vm *vm, uint64_t start, uint64_t bytes)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_uffd_continue(vm->uffd, start, bytes);
    fl_call_end(call);
    return error;
}

bool fl_vm_alive(struct fl_vm *vm)
{
    struct fl_call *call = fl_call_begin(vm);
    bool alive = fl_uffd_alive(vm->uffd);
    fl_call_end(call);
    return alive;
}

bool fl_vm_removing(struct fl_vm *vm)
{
    struct fl_call *call = fl_call_begin(vm);
    bool removing = fl_uffd_removing(vm->uffd);
    fl_call_end(call);
    return removing;
}

bool fl_vm_registered(struct fl_vm *vm, uint64_t address)
{
    struct fl_call *call = fl_call_begin(vm);
    bool registered = fl_uffd_registered(vm->uffd, address, fl_vm_page_bytes(vm));
    fl_call_end(call);
    return registered;
}

bool fl_vm_owns(struct fl_vm *vm, uint64_t address)
{
    struct fl_call *call = fl_call_begin(vm);
    bool owns = fl_uffd_owns(vm->uffd, address, fl_vm_page_bytes(vm));
    fl_call_end(call);
    return owns;
}

int fl_vm_any_absent(struct fl_vm *vm, uint64_t start, uint64_t bytes)
{
    uint64_t absent = 0;
    struct fl_call *call = fl_call_begin(vm);
    int result = fl_presence_first_absent(&vm->presence, start, start + bytes, &absent);
    fl_call_end(call);
    return result;
}

int fl_vm_written(struct fl_vm *vm, uint64_t start, uint64_t pages, uint64_t *ret_written)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_presence_written(&vm->presence, start, pages, ret_written);
    fl_call_end(call);
    return error;
}

int fl_vm_present_runs(struct fl_vm *vm, uint64_t start, uint64_t end,
                       struct fl_presence_run *ret_runs, size_t room, uint64_t *ret_looked)
{
    struct fl_call *call = fl_call_begin(vm);
    int runs = fl_presence_runs(&vm->presence, start, end, ret_runs, room, ret_looked);
    fl_call_end(call);
    return runs;
}

int fl_vm_look(struct fl_vm *vm, struct fl_presence_look *look)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_presence_look(&vm->presence, look);
    fl_call_end(call);
    return error;
}

// No call: it takes the lock of the task, and none of its memory.
int fl_vm_open_memory(struct fl_vm *vm)
{
    return fl_presence_open_memory((pid_t)vm->state->pid, vm->pidfd);
}

int fl_vm_read(struct fl_vm *vm, int memory, const struct fl_presence_kind *runs, size_t count,
               void *to)
{
    struct fl_call *call = fl_call_begin(vm);
    int error = fl_presence_read(memory, runs, count, to);
    fl_call_end(call);
    return error;
}

// --- what can be seen ---

// So that its pages can be looked at: of a process that is not the one whose memory it is they
// would say nothing.
void fl_vm_find_presence(struct fl_vm *vm)
{
    int error = vm->state->flags & FL_VM_STATE_OWNER
                    ? fl_presence_open((pid_t)vm->state->pid, vm->pidfd, &vm->presence)
                    : -ENOENT;
    if (error && error != -ESRCH)
        fl_log(FL_LOG_WARNING,
               "event=presence_unknown vm=%" PRIu64 " image=%s pid=%" PRId64 " reason=\"%s\"",
               vm->id, fl_vm_image_name(vm), vm->state->pid,
               error == -ENOENT ? "it is not known which process has its memory"
                                : strerror(-error));
}
