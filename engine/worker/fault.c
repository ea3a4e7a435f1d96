// SPDX-License-Identifier: Apache-2.0
#include "engine/worker/fault.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <urcu/compiler.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/collapse.h"
#include "engine/ahead/fill.h"
#include "engine/ahead/replay.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/probe.h"
#include "engine/host/uffd.h"
#include "engine/serve/fault_around.h"
#include "engine/serve/outside.h"
#include "engine/serve/park.h"
#include "engine/serve/resolve.h"
#include "engine/serve/vm_call.h"
#include "engine/serve/zero_around.h"
#include "engine/vm/capture_pages.h"
#include "engine/vm/history.h"
#include "engine/vm/recording.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"

// A write to a page that a capture has protected. Without one, and for minor faults, those are
// modes that the engine did not register but a VMM can, or the engine before: let the toucher go
// on.
static enum fl_outcome fault_of_other_mode(struct fl_shard *shard, struct fl_vm *vm,
                                           uint64_t address, uint64_t flags)
{
    uint64_t number = 0;
    uint64_t bytes = fl_vm_page_bytes(vm);
    uint64_t page = address & ~(bytes - 1);
    bool protected = flags & UFFD_PAGEFAULT_FLAG_WP;
    struct fl_shard_stats *stats = atomic_load(&vm->owner)->stats;
    fl_counter_add(protected ? &stats->write_protect : &stats->minor, 1);
    if (protected && vm->capture && fl_layout_page(&vm->state->layout, page, &number)) {
        fl_capture_fault(shard, vm, number);
        return FL_INSTALLED;
    }
    int error = protected ? fl_vm_unprotect(vm, page, bytes) : fl_vm_continue(vm, page, bytes);
    if (error)
        fl_uffd_wake(vm->uffd, page, bytes);
    return FL_INSTALLED;
}

static bool is_other_mode(uint64_t flags)
{
    return flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_MINOR);
}

// Of a page that no park waits for.
static enum fl_outcome fault_anew(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                  struct fl_ask *ask, uint32_t *ret_there)
{
    bool write = ask->flags & UFFD_PAGEFAULT_FLAG_WRITE;
    struct fl_around around = fl_fault_around(shard, vm, page, ask->pages, write);
    uint32_t asked = around.pages < ask->pages ? around.pages : ask->pages;
    ask->replayed = fl_replay_fault(shard, vm, page, asked);
    enum fl_outcome outcome =
        fl_resolve_some(shard, vm, page, around.pages, &around.run, ask->replayed, ret_there);
    if (around.zeros && outcome == FL_ZEROED)
        fl_zero_around_before(shard, vm, page, asked, *ret_there, around.before);
    return outcome;
}

enum fl_outcome fl_fault(struct fl_shard *shard, struct fl_vm *vm, struct fl_ask *ask,
                         uint32_t *ret_there)
{
    uint64_t page = 0;
    *ret_there = 0;
    if (is_other_mode(ask->flags))
        return fault_of_other_mode(shard, vm, ask->address, ask->flags);
    if (!vm->image || !fl_layout_page(&vm->state->layout, ask->address, &page))
        return fl_fault_outside(vm, ask->address);
    if (fl_vm_is_recorded(vm))
        fl_vm_recording_note(shard, vm, page);
    if (shard->options->populate)
        fl_fill_begin(shard, vm, FL_FILL_ALL);
    struct fl_park *park = fl_park_find(vm, page);
    if (!park)
        return fault_anew(shard, vm, page, ask, ret_there);
    fl_counter_add(&shard->stats->duplicates, 1);
    if (!park->read_ns) { // a fill asked first; now a thread waits
        park->read_ns = shard->now;
        park->replayed = fl_replay_fault(shard, vm, page, 1);
        fl_resolve_hurry(vm, page);
    }
    return FL_PARKED;
}

// The guest gave [start, end) back: zeros from now on, in memory that is no template's. Only pages
// that lie in it as a whole: the kernel drops no part of one. It reports a part of a huge page all
// the same, and clears it if the page is there (findings/hugetlb-small-madvise.sh).
static void pages_removed(struct fl_vm *vm, uint64_t start, uint64_t end)
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
        // Of a template the image's bytes come back, by themselves where it is filled.
        if (!(vm->state->flags & FL_VM_STATE_TEMPLATE))
            fl_bits_set(vm->removed, region->first_page + first, last - first);
        FL_CRASH_POINT("removed_set");
        fl_bits_clear(vm->installed, region->first_page + first, last - first);
        fl_collapse_removed(vm, region->first_page + first, last - first);
        fl_counter_add(&vm->state->counters.removed, units);
        fl_counter_add(&atomic_load(&vm->owner)->stats->removed_units, units);
    }
}

// A child of a refused VM, on its way to the control thread.
struct child {
    struct fl_mail mail;
    int uffd;
};

static void child_came(void *control, struct fl_mail *mail)
{
    struct fl_engine *engine = control;
    struct child *child = caa_container_of(mail, struct child, mail);
    engine->ops->refuse_child(engine, child->uffd);
    free(child);
}

static void drop_child(struct fl_mail *mail)
{
    struct child *child = caa_container_of(mail, struct child, mail);
    fl_close_later(child->uffd);
    free(child);
}

static void vm_forked(struct fl_shard *shard, int uffd)
{
    struct child *child = malloc(sizeof(*child));
    if (!child)
        return; // kept open, like any userfaultfd that cannot be attached
    *child = (struct child){.mail = {.deliver = child_came, .drop = drop_child}, .uffd = uffd};
    fl_mailbox_post(shard->control, &child->mail);
}

static void event_act(struct fl_shard *shard, struct fl_vm *vm, const struct uffd_msg *msg)
{
    switch (msg->event) {
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
        pages_removed(vm, msg->arg.remove.start, msg->arg.remove.end);
        if (vm->capture)
            fl_capture_removed(vm, msg->arg.remove.start, msg->arg.remove.end);
        break;
    case UFFD_EVENT_FORK:
        // Only a refused VM can have asked for these. Its child's faults need an answer too.
        vm_forked(shard, (int)msg->arg.fork.ufd);
        break;
    default:
        break; // UFFD_EVENT_REMAP, likewise: its faults come with addresses outside, which are
               // poisoned
    }
}

static bool ask_same(const struct fl_ask *a, const struct fl_ask *b)
{
    return a->address == b->address && a->flags == b->flags;
}

// Insertion sort: batches are short, and qsort() may allocate.
static void ask_insert(struct fl_ask *asked, unsigned count, struct fl_ask new)
{
    while (count > 0 && asked[count - 1].address > new.address) {
        asked[count] = asked[count - 1];
        count--;
    }
    asked[count] = new;
}

// How many pages in a row are asked for, from the first one on.
static uint32_t asks_in_a_row(const struct fl_ask *asked, unsigned count, uint64_t page_bytes)
{
    uint32_t pages = 1;
    for (unsigned i = 1; i < count && !is_other_mode(asked[i].flags); i++) {
        uint64_t next = asked[0].address + pages * page_bytes;
        if (asked[i].address > next)
            break;
        pages += asked[i].address == next;
    }
    return pages;
}

// A fault whose page came in one go with that of the fault before.
static void note_follower(const struct fl_shard *shard, struct fl_vm *vm, uint64_t address)
{
    struct fl_vm_history *history = fl_vm_history(vm);
    uint64_t page = 0;
    if (history && fl_layout_page(&vm->state->layout, address, &page))
        fl_vm_history_fault(history, page, shard->now, FL_WAITED_NOT);
}

// In order, so that duplicates are neighbours and pages in a row can be installed in one go: what
// that has reached was asked for before, and its waiters are awake.
static void faults_act(struct fl_shard *shard, struct fl_vm *vm, struct fl_ask *asked,
                       unsigned count)
{
    uint64_t there_to = 0; // address
    enum fl_outcome outcome = FL_PARKED;
    enum fl_stage stage = FL_STAGE_CACHED;
    fl_counter_add(&shard->stats->faults, count);
    fl_counter_add(&vm->state->counters.faults, count);
    for (unsigned i = 0; i < count; i++) {
        if (i > 0 && ask_same(&asked[i], &asked[i - 1])) {
            fl_counter_add(&shard->stats->duplicates, 1);
        } else if (asked[i].address < there_to && !is_other_mode(asked[i].flags)) {
            fl_resolved(shard, vm, outcome, stage, shard->now);
            note_follower(shard, vm, asked[i].address);
        } else {
            uint32_t there = 0;
            asked[i].pages = asks_in_a_row(&asked[i], count - i, fl_vm_page_bytes(vm));
            outcome = fl_fault(shard, vm, &asked[i], &there);
            stage = asked[i].replayed ? FL_STAGE_REPLAY : FL_STAGE_CACHED;
            there_to = asked[i].address + there * fl_vm_page_bytes(vm);
        }
    }
}

// read() gives faults before events whatever their order of arrival, so the events of a batch are
// acted on first: a page that was removed must not be filled from the image after this.
static void inbox_act(struct fl_shard *shard, struct fl_vm *vm, unsigned count)
{
    struct fl_ask asked[FL_INBOX];
    unsigned pending = 0;
    uint64_t mask = ~(fl_vm_page_bytes(vm) - 1);
    for (unsigned i = 0; i < count; i++) {
        const struct uffd_msg *msg = &vm->state->inbox[i];
        if (msg->event != UFFD_EVENT_PAGEFAULT) {
            event_act(shard, vm, msg);
            continue;
        }
        FL_PROBE(fault_read, vm->id, msg->arg.pagefault.address, msg->arg.pagefault.flags);
        ask_insert(
            asked, pending++,
            (struct fl_ask){msg->arg.pagefault.address & mask, msg->arg.pagefault.flags, 1, false});
    }
    FL_CRASH_POINT("events_acted");
    faults_act(shard, vm, asked, pending);
}

bool fl_inbox_turn(struct fl_shard *shard, struct fl_vm *vm)
{
    struct uffd_msg *inbox = vm->state->inbox;
    unsigned most = FL_INBOX;
    bool more = false;
    if (vm->capture)
        most = fl_capture_may_read(shard, vm, &more);
    ssize_t got = most > 0 ? fl_uffd_read(vm->uffd, inbox, most) : 0;
    if (got < (ssize_t)sizeof(*inbox))
        return more;
    unsigned count = (unsigned)((size_t)got / sizeof(*inbox));
    FL_CRASH_POINT("messages_read");
    shard->now = fl_now();
    fl_counter_set(&shard->batch_ns, shard->now);
    inbox_act(shard, vm, count);
    FL_CRASH_POINT("messages_acted");
    // A successor after a kill replays what it finds here: clear only when all of it was acted on.
    atomic_signal_fence(memory_order_seq_cst);
    memset(inbox, 0, count * sizeof(*inbox));
    fl_counter_set(&shard->batch_ns, 0);
    return true;
}

void fl_inbox_replay(struct fl_shard *shard, struct fl_vm *vm)
{
    struct uffd_msg *inbox = vm->state->inbox;
    for (unsigned i = 0; i < FL_INBOX; i++) {
        // A child's descriptor was the predecessor's, and went with it.
        if (inbox[i].event == UFFD_EVENT_REMOVE || inbox[i].event == UFFD_EVENT_UNMAP)
            event_act(shard, vm, &inbox[i]);
    }
    FL_CRASH_POINT("replayed");
    atomic_signal_fence(memory_order_seq_cst);
    memset(inbox, 0, sizeof(vm->state->inbox));
}
