// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A VM is made in one step of the control thread: its state memfd, its entry
// in the table, its record at the keeper; then a worker gets it, and reads the first fault. In this
// order a successor can go on at any time. It is freed when its worker has mailed that it is gone
// (fl_vm_dispose): table, record, descriptors, in this order, and the structure after a grace
// period, as RCU readers may still see it.
//
// A VM holds one reference of its image (fl_images_put) and, as a clone, one of its template
// (fl_template_unclone).
#include "engine/accept/attach.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/admission.h"
#include "engine/accept/captures.h"
#include "engine/accept/huge_order.h"
#include "engine/accept/peer.h"
#include "engine/accept/replay_order.h"
#include "engine/ahead/collapse.h"
#include "engine/ahead/fill.h"
#include "engine/ahead/fill_direct.h"
#include "engine/ahead/first_pages.h"
#include "engine/ahead/replay.h"
#include "engine/ahead/unprotect.h"
#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/host/uffd.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/serve/kill.h"
#include "engine/serve/park.h"
#include "engine/serve/vm_call.h"
#include "engine/template/template.h"
#include "engine/template/templates.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

static void close_fd(int *fd)
{
    fl_close_later(*fd);
    *fd = -1;
}

// --- making and freeing ---

static void close_all(struct fl_vm *vm)
{
    fl_close_later(atomic_exchange(&vm->uffd, -1));
    fl_close_later(atomic_exchange(&vm->pidfd, -1));
    fl_close_later(atomic_exchange(&vm->socket, -1));
    close_fd(&vm->state_fd);
    fl_presence_close(&vm->presence);
}

// What a VM is, from its state.
static struct fl_vm *vm_of_state(struct fl_peer *peer, int state_fd, struct fl_vm_state *state)
{
    struct fl_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return NULL;
    vm->id = state->id;
    vm->state_fd = state_fd;
    vm->state = state;
    vm->uffd = peer->uffd;
    vm->uffd_inode = fl_uffd_inode(peer->uffd);
    vm->pidfd = peer->pidfd;
    vm->socket = peer->socket;
    *peer = (struct fl_peer){.uffd = -1, .pidfd = -1, .socket = -1};
    vm->presence = FL_PRESENCE_UNKNOWN;
    vm->removed = fl_vm_removed(state);
    vm->installed = fl_vm_installed(state);
    vm->page_shift = state->layout.pages > 0 ? state->layout.page_shift : FL_PAGE_SHIFT;
    vm->on_error = state->flags & FL_VM_STATE_KILL   ? FL_ON_ERROR_KILL
                   : state->flags & FL_VM_STATE_AUTO ? FL_ON_ERROR_AUTO
                                                     : FL_ON_ERROR_POISON;
    fl_parks_init(&vm->parks);
    fl_fill_init(vm);
    fl_replay_init(vm);
    fl_first_pages_init(vm);
    fl_collapse_init(vm);
    fl_unprotect_init(vm);
    vm->watch_faults = (struct fl_watch){FL_WATCH_FAULTS, vm};
    vm->watch_exit = (struct fl_watch){FL_WATCH_EXIT, vm};
    vm->watch_socket = (struct fl_watch){FL_WATCH_SOCKET, vm};
    return vm;
}

static uint64_t policy_flags(enum fl_policy policy)
{
    switch (policy) {
    case FL_POLICY_KILL:
        return FL_VM_STATE_KILL;
    case FL_POLICY_POISON:
        return 0;
    case FL_POLICY_DEFAULT:
    case FL_POLICY_AUTO:
        break;
    }
    return FL_VM_STATE_AUTO;
}

static struct fl_vm *new_vm(struct fl_engine *engine, uint64_t id, struct fl_peer *peer,
                            const char *image_name, const struct fl_layout *layout)
{
    int state_fd = -1;
    struct fl_vm_state *state = NULL;
    if (fl_vm_state_create(id, peer->pid, image_name, layout, &state_fd, &state))
        return NULL;
    enum fl_policy policy = peer->choices.policy;
    if (policy == FL_POLICY_DEFAULT)
        policy = engine->options.on_error;
    state->flags = FL_VM_STATE_SEEN | policy_flags(policy) |
                   (peer->owner ? FL_VM_STATE_OWNER : 0U) | (peer->told ? FL_VM_STATE_TOLD : 0U) |
                   (peer->alone ? FL_VM_STATE_PRIVATE : 0U) |
                   (peer->reserved ? FL_VM_STATE_RESERVED : 0U);
    if (!peer->owner) // an orchestrator's end would say nothing, and it may outlive the VM
        close_fd(&peer->pidfd);
    struct fl_vm *vm = vm_of_state(peer, state_fd, state);
    if (vm)
        return vm;
    fl_vm_state_unmap(state);
    close(state_fd);
    return NULL;
}

static void free_vm(struct rcu_head *head)
{
    struct fl_vm *vm = caa_container_of(head, struct fl_vm, rcu);
    fl_rcu_freeing();
    fl_fill_direct_end(vm);
    fl_vm_state_unmap(vm->state);
    free(vm);
}

static void log_end(const struct fl_vm *vm)
{
    const struct fl_vm_counters *counters = &vm->state->counters;
    FL_PROBE(detach, vm->id, fl_vm_image_name(vm), atomic_load(&vm->state->pid));
    fl_log(FL_LOG_INFO,
           "event=detach vm=%" PRIu64 " image=%s pid=%" PRId64 " faults=%" PRIu64
           " installed=%" PRIu64 " zeroed=%" PRIu64 " poisoned=%" PRIu64 " removed=%" PRIu64,
           vm->id, fl_vm_image_name(vm), vm->state->pid, fl_counter_get(&counters->faults),
           fl_counter_get(&counters->installed), fl_counter_get(&counters->zeroed),
           fl_counter_get(&counters->poisoned), fl_counter_get(&counters->removed));
}

// `filled`: it was to have all of its memory, whatever ended it.
static void count_end(struct fl_ends *ends, const struct fl_vm *vm, bool filled)
{
    uint64_t poisoned = fl_counter_get(&vm->state->counters.poisoned);
    bool released = (vm->state->flags & FL_VM_STATE_RELEASED) != 0;
    if (released || filled) {
        ends->released += released;
        ends->poisoned += poisoned > 0;
        ends->poisoned_pages += poisoned;
    } else if (vm->killed_pid > 0) {
        ends->killed++;
    }
}

// What the template has, the VM has, whether it touched it or not.
static void note_template(const struct fl_vm *vm, struct fl_vm_history *history)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        uint64_t first = fl_layout_image_page(layout, region->first_page);
        uint64_t end = first + (region->bytes >> layout->page_shift);
        uint64_t page = fl_template_next(vm->template, first, end);
        while (page < end) {
            uint64_t there = fl_template_there(vm->template, page, end - page);
            fl_vm_history_found(history, region->first_page + (page - first), there,
                                FL_CAME_TEMPLATE);
            page = fl_template_next(vm->template, page + there, end);
        }
    }
}

static void note_end(struct fl_engine *engine, struct fl_vm *vm)
{
    struct fl_vm_history *history = fl_vm_history(vm);
    if (history && vm->template)
        note_template(vm, history);
    fl_histories_end(&engine->histories, vm);
}

// The memory behind the userfaultfd is gone, or unregistered: only now may it be closed.
void fl_vm_dispose(struct fl_engine *engine, struct fl_vm *vm)
{
    fl_image_count_gone(&engine->image_counting, vm);
    FL_CRASH_POINT("vm_counted");
    if (!fl_vm_refused(vm)) {
        log_end(vm);
        count_end(&engine->counts->ends, vm, engine->options.populate);
    }
    note_end(engine, vm);
    fl_captures_vm_gone(engine->captures, vm->id);
    fl_vms_remove(&engine->vms, vm);
    FL_CRASH_POINT("vm_gone");
    fl_keeper_link_drop(engine->keeper_link, FL_RECORD_VM, vm->id);
    FL_CRASH_POINT("vm_dropped");
    close_all(vm);
    if (vm->template)
        fl_template_unclone(vm->template);
    vm->template = NULL;
    if (vm->image)
        fl_images_put(engine->images, vm->image);
    vm->image = NULL;
    fl_rcu_defer(&vm->rcu, free_vm);
}

// `connection`: the record that the VM's takes the place of; 0: none.
static void keep_vm(struct fl_engine *engine, const struct fl_vm *vm, uint64_t connection)
{
    const int fds[FL_VM_SLOTS] = {
        [FL_VM_STATE] = vm->state_fd,
        [FL_VM_UFFD] = vm->uffd,
        // By which the keeper kills: of the process whose memory it is only.
        [FL_VM_PIDFD] = vm->state->flags & FL_VM_STATE_OWNER ? vm->pidfd : -1,
        [FL_VM_SOCKET] = vm->socket,
    };
    fl_keeper_link_put_vm(engine->keeper_link, vm->id, fds, connection);
}

static void keep_again(void *arg, const struct fl_vm *vm)
{
    keep_vm(arg, vm, 0);
}

void fl_attach_keep_all(struct fl_engine *engine)
{
    fl_vms_each(&engine->vms, keep_again, engine);
}

// Its memory is that of a template: NULL if that is lost, and then its pages come privately.
static void share_template(struct fl_vm *vm, struct fl_template *template)
{
    vm->template = template;
    if (!template)
        return;
    vm->state->flags |= FL_VM_STATE_TEMPLATE;
    fl_template_clone(template);
}

// Not where it would hide a touch, nor where all pages come anyway.
static void expect_first_pages(const struct fl_engine *engine, struct fl_vm *vm, bool transparent)
{
    if (transparent && vm->page_shift == FL_PAGE_SHIFT && !vm->template && !fl_vm_is_recorded(vm) &&
        !engine->options.populate && engine->options.prefetch_pages >= 2)
        vm->state->flags |= FL_VM_STATE_FIRST_PAGES;
}

int fl_attach(struct fl_engine *engine, struct fl_peer *peer, struct fl_image *image,
              const struct fl_layout *layout)
{
    uint64_t connection = peer->connection;
    struct fl_template *template = peer->template;
    uint64_t huge_need = peer->huge_need;
    bool transparent = peer->transparent;
    bool anonymous = peer->anonymous;
    enum fl_huge huge = peer->choices.huge;
    struct fl_vm *vm = new_vm(engine, engine->vms.next_id, peer, fl_image_name(image), layout);
    if (!vm)
        return -ENOMEM;
    vm->image = image;
    vm->huge_need = huge_need;
    fl_vm_find_presence(vm);
    vm->state->image_record = fl_images_keep(engine->images, image);
    vm->state->connection = connection;
    share_template(vm, template);
    if (!engine->options.populate && !template) // what others touched there is not seen
        vm->touches = fl_recording_orders_begin(&engine->recordings, vm->id, image, layout);
    fl_replay_expect(engine, vm);
    expect_first_pages(engine, vm, transparent);
    fl_huge_choose(engine, vm, huge, anonymous);
    fl_histories_begin(&engine->histories, vm);
    FL_CRASH_POINT("image_kept");
    engine->counts->attached++;
    fl_image_count_attached(&engine->image_counting, vm);
    fl_vms_add(&engine->vms, vm);
    // Before the first fault is read: from here on a successor can go on.
    keep_vm(engine, vm, connection);
    FL_CRASH_POINT("vm_kept");
    FL_PROBE(attach, vm->id, fl_vm_image_name(vm), atomic_load(&vm->state->pid));
    fl_log(FL_LOG_INFO,
           "event=attach vm=%" PRIu64 " image=%s pid=%" PRId64 " regions=%u bytes=%" PRIu64
           " page_size=%" PRIu64 " recorded=%s",
           vm->id, vm->state->image, vm->state->pid, layout->regions,
           layout->pages << layout->page_shift, fl_vm_page_bytes(vm),
           fl_vm_is_recorded(vm) ? "yes" : "no");
    fl_worker_attach(fl_worker_fewest(engine), vm);
    fl_replay_order(engine, vm);
    fl_admission_attached(engine, vm);
    return 0;
}

// --- from another process ---

static void serve_vm(struct fl_engine *engine, struct fl_vm *vm)
{
    fl_worker_attach(fl_worker_fewest(engine), vm);
    fl_replay_order(engine, vm);
    fl_admission_attached(engine, vm);
}

struct fl_vm *fl_attach_state(struct fl_engine *engine, struct fl_peer *peer, int state_fd,
                              struct fl_vm_state *state, bool record)
{
    if (!record)
        state->id = engine->vms.next_id;
    struct fl_vm *vm = vm_of_state(peer, state_fd, state);
    if (!vm)
        return NULL;
    vm->inherited = true;
    fl_vms_add(&engine->vms, vm);
    FL_CRASH_POINT("vm_inherited");
    return vm;
}

struct origin {
    uint64_t connection;
    bool found;
};

static void compare_origin(void *arg, const struct fl_vm *vm)
{
    struct origin *origin = arg;
    origin->found = origin->found || vm->state->connection == origin->connection;
}

bool fl_attach_comes_from(struct fl_engine *engine, uint64_t connection)
{
    struct origin origin = {.connection = connection};
    fl_vms_each(&engine->vms, compare_origin, &origin);
    return origin.found;
}

struct same {
    int uffd;
    uint64_t inode;
    struct fl_vm *found;
};

static void compare_uffd(void *arg, const struct fl_vm *vm)
{
    struct same *same = arg;
    if (!same->found && fl_uffd_may_be_same(vm->uffd_inode, same->inode) &&
        fl_uffd_same(vm->uffd, same->uffd))
        same->found = caa_container_of(&vm->in_table, struct fl_vm, in_table);
}

struct fl_vm *fl_attach_find(struct fl_engine *engine, int uffd)
{
    struct same same = {.uffd = uffd, .inode = fl_uffd_inode(uffd)};
    fl_vms_each(&engine->vms, compare_uffd, &same);
    return same.found;
}

void fl_attach_adopted(struct fl_engine *engine, struct fl_vm *vm, struct fl_image *image)
{
    uint64_t before = vm->state->image_record;
    vm->image = image;
    if (image)
        fl_vm_find_presence(vm);
    vm->state->image_record = image ? fl_images_keep(engine->images, image) : 0;
    // An orphan's template is lost, whatever there is of its image here.
    if ((vm->state->flags & FL_VM_STATE_TEMPLATE) && before == vm->state->image_record)
        share_template(vm, fl_templates_of_record(engine->templates, vm->state->image_record));
    if (before == 0 || before != vm->state->image_record) // else the keeper has all of it
        keep_vm(engine, vm, 0);
    if (!fl_vm_refused(vm))
        fl_log(FL_LOG_INFO, "event=adopt vm=%" PRIu64 " image=%s pid=%" PRId64 " faults=%" PRIu64,
               vm->id, fl_vm_image_name(vm), vm->state->pid,
               fl_counter_get(&vm->state->counters.faults));
    fl_replay_expect(engine, vm);
    fl_huge_expect(engine, vm);
    if (image && !fl_vm_refused(vm))
        fl_histories_begin(&engine->histories, vm);
    if (vm->pidfd >= 0 && !(vm->state->flags & FL_VM_STATE_OWNER))
        fl_kill_find(&engine->killer, vm);
    vm->complete = true;
    if (!vm->held)
        serve_vm(engine, vm);
}

void fl_attach_freed(struct fl_engine *engine, struct fl_vm *vm)
{
    vm->held = false;
    if (vm->complete)
        serve_vm(engine, vm);
}

void fl_attach_forget(struct fl_engine *engine, struct fl_vm *vm)
{
    fl_histories_end(&engine->histories, vm);
    fl_vms_remove(&engine->vms, vm);
    close_all(vm);
    fl_rcu_defer(&vm->rcu, free_vm);
}

// --- without an image ---

int fl_attach_imageless(struct fl_engine *engine, uint64_t id, struct fl_peer *peer, uint64_t flags)
{
    static const struct fl_layout none = {0};
    uint64_t connection = peer->connection;
    struct fl_vm *vm = new_vm(engine, id, peer, "", &none);
    if (!vm)
        return -ENOMEM;
    vm->state->connection = connection;
    vm->state->flags |= flags;
    fl_vms_add(&engine->vms, vm);
    keep_vm(engine, vm, connection);
    if (!(vm->state->flags & FL_VM_STATE_OWNER))
        fl_kill_find(&engine->killer, vm);
    fl_worker_attach(fl_worker_fewest(engine), vm);
    return 0;
}
