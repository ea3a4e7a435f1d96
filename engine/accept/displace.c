// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/displace.h"

#include <inttypes.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/host/memory_owner.h"
#include "engine/host/uffd.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

enum { STEP = 2 << 20 };

// An order to a VM's worker. The VM may end meanwhile: it is known by its number.
struct order {
    struct fl_mail mail;
    struct fl_engine *engine;
    uint64_t vm;
};

// --- in the worker of the VM before ---

// Registered with its own userfaultfd, not with another.
static bool is_its_own(struct fl_vm *vm, uint64_t address)
{
    return fl_vm_registered(vm, address) && fl_vm_owns(vm, address);
}

static bool has_any(struct fl_vm *vm, const struct fl_region *region)
{
    for (uint64_t at = 0; at < region->bytes; at += STEP) {
        if (is_its_own(vm, region->base + at))
            return true;
    }
    return is_its_own(vm, region->base + region->bytes - fl_vm_page_bytes(vm));
}

// The order may be lost here, when the kernel makes the thread wait and another goes on with what
// it had: then it is given again.
static void let_go_of_vm(struct fl_shard *shard, struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        if (has_any(vm, &layout->region[i]))
            return;
    }
    fl_log(FL_LOG_INFO,
           "event=displaced vm=%" PRIu64 " image=%s pid=%" PRId64
           " reason=\"its process has mapped other memory there, with another userfaultfd\"",
           vm->id, fl_vm_image_name(vm), vm->state->pid);
    fl_shard_vm_gone(shard, vm);
}

static void order_came(void *owner, struct fl_mail *mail)
{
    struct order *order = caa_container_of(mail, struct order, mail);
    struct fl_vm *vm = fl_vms_find(&order->engine->vms, order->vm);
    if (vm && vm->owner != owner) { // it went to another worker meanwhile
        fl_mailbox_post(&vm->owner->mailbox, &order->mail);
        return;
    }
    free(order);
    if (vm && vm->phase != FL_VM_GONE)
        let_go_of_vm(owner, vm);
}

// --- in the reader ---

struct search {
    struct fl_engine *engine;
    pid_t pid;
    int uffd;
    uint64_t inode; // of the userfaultfd
    const struct fl_layout *layout;
    bool found;
};

static bool layouts_overlap(const struct fl_layout *a, const struct fl_layout *b)
{
    for (uint32_t i = 0; i < a->regions; i++) {
        for (uint32_t k = 0; k < b->regions; k++) {
            const struct fl_region *one = &a->region[i];
            const struct fl_region *other = &b->region[k];
            if (one->base < other->base + other->bytes && other->base < one->base + one->bytes)
                return true;
        }
    }
    return false;
}

// Without memory for it the order is given the next time.
static void give_order(struct fl_engine *engine, const struct fl_vm *vm)
{
    struct fl_shard *owner = vm->owner;
    struct order *order = owner ? malloc(sizeof(*order)) : NULL;
    if (!order)
        return;
    *order = (struct order){.mail.deliver = order_came, .engine = engine, .vm = vm->id};
    FL_CRASH_POINT("displacing");
    fl_mailbox_post(&owner->mailbox, &order->mail);
}

// The control thread may dispose of the VM meanwhile and close its userfaultfd, and the number may
// be another file's by then. Nothing writes for such a VM any more, so either answer is right.
static bool is_anothers(const struct search *search, const struct fl_vm *vm)
{
    int uffd = vm->uffd;
    FL_CRASH_POINT("comparing");
    return uffd >= 0 && !(fl_uffd_may_be_same(search->inode, vm->uffd_inode) &&
                          fl_uffd_same(search->uffd, uffd));
}

// A VM whose process is not known is left as it is: another process may have the same addresses.
static void compare_vm(void *arg, const struct fl_vm *vm)
{
    struct search *search = arg;
    if (!(vm->state->flags & FL_VM_STATE_OWNER) ||
        !layouts_overlap(search->layout, &vm->state->layout) || !is_anothers(search, vm) ||
        !fl_memory_owner_same_memory(search->pid, (pid_t)vm->state->pid))
        return;
    search->found = true;
    give_order(search->engine, vm);
}

bool fl_displace(struct fl_engine *engine, pid_t pid, int uffd, const struct fl_layout *layout)
{
    struct search search = {
        .engine = engine, .pid = pid, .uffd = uffd, .inode = fl_uffd_inode(uffd), .layout = layout};
    fl_rcu_online();
    fl_vms_each(&engine->vms, compare_vm, &search);
    fl_rcu_offline();
    return search.found;
}
