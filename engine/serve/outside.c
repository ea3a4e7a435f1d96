// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/outside.h"

#include <errno.h>
#include <inttypes.h>

#include "engine/base/log.h"
#include "engine/host/uffd.h"
#include "engine/serve/kill.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// An address that no region holds: the VMM registered more than it said, or its handshake was
// refused. Its bytes are nowhere, so the thread that touched it must be told.
enum fl_outcome fl_fault_outside(struct fl_vm *vm, uint64_t address)
{
    static const uint64_t sizes[] = {FL_PAGE_SIZE, 2U << 20};
    int error = -EINVAL;
    if (fl_kill_wanted(vm) &&
        fl_kill(atomic_load(&vm->owner)->killer, vm, "it touched memory that no image backs"))
        return FL_PARKED; // its end is waited for, or it asks again
    for (unsigned i = 0; i < 2 && error == -EINVAL; i++) {
        uint64_t page = address & ~(sizes[i] - 1);
        error = fl_vm_poison(vm, page, sizes[i]);
        if (error == -EEXIST || error == -EAGAIN || error == -ENOENT || error == -ENOMEM)
            fl_uffd_wake(vm->uffd, page, sizes[i]); // it touches again, and asks again if it must
    }
    if (error == -ESRCH) {
        fl_shard_vm_gone(vm->owner, vm);
        return FL_PARKED;
    }
    if (error == -ENOSYS || error == -EINVAL) {
        fl_kill(atomic_load(&vm->owner)->killer, vm,
                "it touched memory that no image backs, and this kernel cannot poison it");
        return FL_PARKED;
    }
    if (error == 0) {
        if (fl_counter_get(&vm->state->counters.poisoned) == 0 && !fl_vm_refused(vm))
            fl_log(FL_LOG_ERROR,
                   "event=outside vm=%" PRIu64 " image=%s address=0x%" PRIx64
                   " reason=\"the VM touched memory that no image backs: it gets SIGBUS\"",
                   vm->id, fl_vm_image_name(vm), address);
        fl_counter_add(&vm->state->counters.poisoned, 1);
        fl_counter_add(&atomic_load(&vm->owner)->stats->poisoned, 1);
    }
    return FL_POISONED;
}
