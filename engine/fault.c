// SPDX-License-Identifier: Apache-2.0
#include "engine/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "engine/attach.h"
#include "engine/bitmap.h"
#include "engine/clock.h"
#include "engine/log.h"
#include "engine/point.h"
#include "engine/uffd.h"
#include "engine/vm.h"
#include "engine/worker.h"

// An address that no region holds: the VMM registered more than it said, or its handshake was
// refused. Its bytes are nowhere, so whoever touched it must be told.
enum fl_outcome fl_fault_outside(struct fl_vm *vm, uint64_t address)
{
    static const uint64_t sizes[] = {FL_PAGE_SIZE, 2U << 20};
    int error = -EINVAL;
    for (unsigned i = 0; i < 2 && error == -EINVAL; i++) {
        uint64_t page = address & ~(sizes[i] - 1);
        error = fl_uffd_poison(vm->uffd, page, sizes[i]);
        if (error == -EEXIST || error == -EAGAIN || error == -ENOENT || error == -ENOMEM)
            fl_uffd_wake(vm->uffd, page, sizes[i]); // it touches again, and asks again if it must
    }
    if (error == -ESRCH) {
        fl_worker_vm_gone(vm->owner, vm);
        return FL_PARKED;
    }
    if (error == -ENOSYS || error == -EINVAL) {
        fl_vm_kill(vm, "it touched memory that no image backs, and this kernel cannot poison it");
        return FL_PARKED;
    }
    if (error == 0) {
        if (fl_counter_get(&vm->state->counters.poisoned) == 0)
            fl_log(FL_LOG_ERROR,
                   "event=outside vm=%" PRIu64 " image=%s address=0x%" PRIx64
                   " reason=\"the VM touched memory that no image backs: it gets SIGBUS\"",
                   vm->id, vm->state->image, address);
        fl_counter_add(&vm->state->counters.poisoned, 1);
        fl_counter_add(&vm->owner->stats.poisoned, 1);
    }
    return FL_POISONED;
}

// Faults of modes that the engine did not register but a VMM can: let the toucher go on.
static enum fl_outcome other_mode(struct fl_vm *vm, uint64_t address, uint64_t flags)
{
    uint64_t bytes = fl_vm_page_bytes(vm);
    uint64_t page = address & ~(bytes - 1);
    int error = flags & UFFD_PAGEFAULT_FLAG_WP ? fl_uffd_unprotect(vm->uffd, page, bytes)
                                               : fl_uffd_continue(vm->uffd, page, bytes);
    if (error)
        fl_uffd_wake(vm->uffd, page, bytes);
    return FL_INSTALLED;
}

enum fl_outcome fl_fault(struct fl_worker *worker, struct fl_vm *vm, uint64_t address,
                         uint64_t flags)
{
    uint64_t page = 0;
    if (flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_MINOR))
        return other_mode(vm, address, flags);
    if (!vm->image || !fl_layout_page(&vm->state->layout, address, &page))
        return fl_fault_outside(vm, address);
    if (worker->options->populate)
        fl_fill_begin(worker, vm, FL_FILL_ALL);
    struct fl_park *park = fl_park_find(vm, page);
    if (!park)
        return fl_resolve(worker, vm, page, worker->now, NULL);
    fl_counter_add(&worker->stats.duplicates, 1);
    if (!park->read_ns) // a fill asked first; now somebody waits
        park->read_ns = worker->now;
    return FL_PARKED;
}

// The guest gave [start, end) back: zeros from now on. Only pages that lie in it as a whole, as the
// kernel drops no part of one.
static void removed(struct fl_vm *vm, uint64_t start, uint64_t end)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        uint64_t from = start > region->base ? start - region->base : 0;
        uint64_t to = end > region->base ? end - region->base : 0;
        to = to < region->bytes ? to : region->bytes;
        uint64_t first = (from + fl_vm_page_bytes(vm) - 1) >> layout->page_shift;
        uint64_t last = to >> layout->page_shift;
        if (first >= last)
            continue;
        uint64_t units = (last - first) * fl_vm_page_units(vm);
        fl_bits_set(vm->removed, region->first_page + first, last - first);
        FL_POINT("removed_set");
        fl_bits_clear(vm->installed, region->first_page + first, last - first);
        fl_counter_add(&vm->state->counters.removed, units);
        fl_counter_add(&vm->owner->stats.removed_units, units);
    }
}

static void event(struct fl_worker *worker, struct fl_vm *vm, const struct uffd_msg *msg)
{
    switch (msg->event) {
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
        removed(vm, msg->arg.remove.start, msg->arg.remove.end);
        break;
    case UFFD_EVENT_FORK:
        // Only a refused VM can have asked for these. Its child's faults need an answer too.
        fl_attach_child(worker->engine, (int)msg->arg.fork.ufd);
        break;
    default:
        break; // UFFD_EVENT_REMAP, likewise: its faults come with addresses outside, which are
               // poisoned
    }
}

struct asked {
    uint64_t address; // of the page
    uint64_t flags;
};

static bool same(const struct asked *a, const struct asked *b)
{
    return a->address == b->address && a->flags == b->flags;
}

// Insertion sort: batches are short, and qsort() may allocate.
static void insert(struct asked *asked, unsigned count, struct asked new)
{
    while (count > 0 && asked[count - 1].address > new.address) {
        asked[count] = asked[count - 1];
        count--;
    }
    asked[count] = new;
}

// In order, so that duplicates are neighbours and neighbouring pages come from one frame in turn.
static void faults(struct fl_worker *worker, struct fl_vm *vm, const struct asked *asked,
                   unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fl_counter_add(&worker->stats.faults, 1);
        fl_counter_add(&vm->state->counters.faults, 1);
        if (i > 0 && same(&asked[i], &asked[i - 1]))
            fl_counter_add(&worker->stats.duplicates, 1);
        else
            fl_fault(worker, vm, asked[i].address, asked[i].flags);
    }
}

// read() gives faults before events whatever their order of arrival, so the events of a batch are
// acted on first: a page that was removed must not be filled from the image after this.
static void act(struct fl_worker *worker, struct fl_vm *vm, unsigned count)
{
    struct asked asked[FL_INBOX];
    unsigned pending = 0;
    uint64_t mask = ~(fl_vm_page_bytes(vm) - 1);
    for (unsigned i = 0; i < count; i++) {
        const struct uffd_msg *msg = &vm->state->inbox[i];
        if (msg->event != UFFD_EVENT_PAGEFAULT) {
            event(worker, vm, msg);
            continue;
        }
        insert(asked, pending++,
               (struct asked){msg->arg.pagefault.address & mask, msg->arg.pagefault.flags});
    }
    FL_POINT("events_acted");
    faults(worker, vm, asked, pending);
}

bool fl_inbox_turn(struct fl_worker *worker, struct fl_vm *vm)
{
    struct uffd_msg *inbox = vm->state->inbox;
    ssize_t got = fl_uffd_read(vm->uffd, inbox, FL_INBOX);
    if (got < (ssize_t)sizeof(*inbox))
        return false;
    unsigned count = (unsigned)((size_t)got / sizeof(*inbox));
    FL_POINT("messages_read");
    worker->now = fl_now();
    act(worker, vm, count);
    FL_POINT("messages_acted");
    // A successor after a kill replays what it finds here: clear only when all of it was acted on.
    atomic_signal_fence(memory_order_seq_cst);
    memset(inbox, 0, count * sizeof(*inbox));
    return true;
}

void fl_inbox_replay(struct fl_worker *worker, struct fl_vm *vm)
{
    struct uffd_msg *inbox = vm->state->inbox;
    for (unsigned i = 0; i < FL_INBOX; i++) {
        // A child's descriptor was the predecessor's, and went with it.
        if (inbox[i].event == UFFD_EVENT_REMOVE || inbox[i].event == UFFD_EVENT_UNMAP)
            event(worker, vm, &inbox[i]);
    }
    FL_POINT("replayed");
    atomic_signal_fence(memory_order_seq_cst);
    memset(inbox, 0, sizeof(vm->state->inbox));
}
