// SPDX-License-Identifier: Apache-2.0
#include "engine/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/epoll.h>

#include <urcu/compiler.h>

#include "engine/attach.h"
#include "engine/clock.h"
#include "engine/fault.h"
#include "engine/fill.h"
#include "engine/kill.h"
#include "engine/log.h"
#include "engine/point.h"
#include "engine/procfs.h"
#include "engine/spin.h"
#include "engine/uffd.h"

enum { HUGE_BYTES = 2 << 20, EVENTS = 64, POLL_EVERY = 8, TASK_EVERY = 4 };
#define UNWATCHED_EVERY FL_NS_PER_MS
#define LOOK_EVERY (250 * FL_NS_PER_MS)

// --- VMs that come and go ---

int fl_worker_watch(struct fl_worker *worker, int fd, uint32_t events, struct fl_watch *watch)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void make_hot(struct fl_worker *worker, struct fl_vm *vm)
{
    vm->last_active_ns = worker->now;
    if (vm->hot || vm->phase == FL_VM_GONE)
        return;
    vm->hot = true;
    cds_list_add_tail(&vm->in_hot, &worker->hot);
}

static void cool_down(struct fl_vm *vm)
{
    if (vm->unwatched && vm->phase != FL_VM_GONE)
        return;
    if (vm->hot)
        cds_list_del(&vm->in_hot);
    vm->hot = false;
}

void fl_worker_doubt(struct fl_worker *worker, struct fl_vm *vm)
{
    worker->doubtful += !vm->doubtful;
    vm->doubtful = true;
    worker->look_ns = 0;
}

// Somebody else served it before, and may have ended at any instruction: what it read and did not
// act on is in the inbox, and every fault that it read is asked anew once its waiter is woken.
static void succeed(struct fl_worker *worker, struct fl_vm *vm)
{
    fl_inbox_replay(worker, vm);
    fl_uffd_wake_all(vm->uffd);
    FL_POINT("woken");
    if (vm->state->flags & FL_VM_STATE_RELEASED)
        fl_fill_go_on_releasing(worker, vm);
}

// Edge-triggered: a hot VM is read in every round until it has nothing, and from then on the next
// fault raises an event.
static void take_over(void *owner, struct fl_mail *mail)
{
    struct fl_worker *worker = owner;
    struct fl_vm *vm = caa_container_of(mail, struct fl_vm, mail);
    cds_list_add_tail(&vm->in_worker, &worker->owned);
    int error = fl_worker_watch(worker, vm->uffd, EPOLLIN | EPOLLET, &vm->watch_faults);
    vm->unwatched = error != 0;
    worker->unwatched += vm->unwatched;
    if (!error && vm->pidfd >= 0)
        error = fl_worker_watch(worker, vm->pidfd, EPOLLIN, &vm->watch_exit);
    if (!error && vm->socket >= 0)
        error = fl_worker_watch(worker, vm->socket, EPOLLRDHUP, &vm->watch_socket);
    if (error) // for want of memory or watches: read it in each round, and do not sleep for long
        fl_log(FL_LOG_ERROR, "event=watch_failed vm=%" PRIu64 " errno=%d", vm->id, -error);
    if (error || vm->pidfd < 0 || vm->death != FL_DEATH_NONE)
        fl_worker_doubt(worker, vm);
    worker->recorded += fl_vm_lazy(vm);
    if (vm->inherited)
        succeed(worker, vm);
    make_hot(worker, vm);
}

void fl_worker_attach(struct fl_worker *worker, struct fl_vm *vm)
{
    atomic_fetch_add(&worker->vms, 1);
    vm->owner = worker;
    vm->mail.deliver = take_over;
    fl_mailbox_post(&worker->mailbox, &vm->mail);
}

void fl_worker_vm_gone(struct fl_worker *worker, struct fl_vm *vm)
{
    if (vm->phase == FL_VM_GONE)
        return;
    vm->phase = FL_VM_GONE;
    cds_list_move(&vm->in_worker, &worker->dead);
}

// At the end of a round, when nothing on the stack refers to them any more.
static void bury(struct fl_worker *worker)
{
    while (!cds_list_empty(&worker->dead)) {
        struct fl_vm *vm = cds_list_first_entry(&worker->dead, struct fl_vm, in_worker);
        cds_list_del(&vm->in_worker);
        cool_down(vm);
        worker->doubtful -= vm->doubtful;
        worker->unwatched -= vm->unwatched;
        fl_parks_end_all(vm);
        fl_touches_end(worker, vm);
        fl_task_end(&vm->fill.task);
        fl_prefetch_end(&vm->prefetch, &worker->prefetch);
        fl_replay_end(worker, vm);
        epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, vm->uffd, NULL);
        if (vm->pidfd >= 0)
            epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, vm->pidfd, NULL);
        if (vm->socket >= 0)
            epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, vm->socket, NULL);
        atomic_fetch_sub(&worker->vms, 1);
        vm->mail.deliver = fl_vm_dispose;
        fl_mailbox_post(worker->control, &vm->mail);
    }
}

static void look_at(struct fl_worker *worker, struct fl_vm *vm)
{
    if (!fl_uffd_alive(vm->uffd)) {
        fl_worker_vm_gone(worker, vm);
    } else if (vm->doubtful) {
        fl_kill_look(worker, vm);
        make_hot(worker, vm);
    }
}

// The process has ended, but something may still use its memory (a kernel worker of KVM, a child
// that shares it): the descriptor stays until the memory is gone.
static void exited(struct fl_worker *worker, struct fl_vm *vm)
{
    epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, vm->pidfd, NULL);
    fl_worker_doubt(worker, vm);
    look_at(worker, vm);
}

// Asks the userfaultfd itself at every 2 MiB of the region, and at its end.
static bool unregistered(const struct fl_vm *vm, const struct fl_region *region)
{
    uint64_t page = fl_vm_page_bytes(vm);
    for (uint64_t at = 0; at < region->bytes; at += HUGE_BYTES) {
        if (fl_uffd_registered(vm->uffd, region->base + at, page))
            return false;
    }
    return !fl_uffd_registered(vm->uffd, region->base + region->bytes - page, page);
}

// A process that lives on may have unmapped what it had us serve: then nobody can wait for us any
// more. Its own maps prove nothing alone: it may have done the handshake for another process.
static bool unmapped(const struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        if (!unregistered(vm, &layout->region[i]))
            return false;
    }
    return layout->regions > 0 && vm->state->pid > 0 &&
           fl_proc_unmapped((pid_t)vm->state->pid, layout);
}

// Firecracker before 1.12 closes at once, later ones when they exit; an exec closes it too, and so
// does a client that is done.
static void hung_up(struct fl_worker *worker, struct fl_vm *vm)
{
    epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, vm->socket, NULL);
    if (unmapped(vm))
        fl_worker_vm_gone(worker, vm);
    if (vm->pidfd < 0) // nothing else will tell us of its end
        fl_worker_doubt(worker, vm);
    look_at(worker, vm);
}

// --- the loop ---

static bool dispatch(struct fl_worker *worker, const struct fl_watch *watch)
{
    if (watch->kind == FL_WATCH_MAILBOX || watch->vm->phase == FL_VM_GONE)
        return false;
    switch (watch->kind) {
    case FL_WATCH_FAULTS:
        make_hot(worker, watch->vm);
        return false;
    case FL_WATCH_EXIT:
        exited(worker, watch->vm);
        return true;
    case FL_WATCH_SOCKET:
        hung_up(worker, watch->vm);
        return true;
    case FL_WATCH_MAILBOX:
        break;
    }
    return false;
}

static bool poll_events(struct fl_worker *worker, const struct timespec *timeout)
{
    struct epoll_event events[EVENTS];
    bool any = false;
    int count = epoll_pwait2(worker->epoll_fd, events, EVENTS, timeout, NULL);
    for (int i = 0; i < count; i++)
        any |= dispatch(worker, events[i].data.ptr);
    return any;
}

// One batch of each hot VM: a storm in one costs the others a batch. A VM whose working set is on
// its way gets a slice of it with its faults, as the pages that it touches next are most likely
// there: where all CPU time goes into faults, replay would else never come to its turn.
static bool read_hot(struct fl_worker *worker)
{
    bool any = false;
    struct fl_vm *vm;
    struct fl_vm *next;
    uint64_t spin_ns = worker->options->spin_us * FL_NS_PER_US;
    cds_list_for_each_entry_safe(vm, next, &worker->hot, in_hot)
    {
        if (vm->phase == FL_VM_GONE)
            continue;
        if (fl_inbox_turn(worker, vm)) {
            vm->last_active_ns = worker->now;
            any = true;
            if (vm->replay.plan && vm->page_shift == FL_PAGE_SHIFT)
                fl_task_run(worker, &vm->replay.task);
        } else if (worker->now - vm->last_active_ns > spin_ns) {
            cool_down(vm);
        }
    }
    return any;
}

static void look(struct fl_worker *worker)
{
    struct fl_vm *vm;
    struct fl_vm *next;
    if (worker->now < worker->look_ns)
        return;
    worker->look_ns = worker->now + LOOK_EVERY;
    cds_list_for_each_entry_safe(vm, next, &worker->owned, in_worker)
    {
        if (vm->doubtful)
            look_at(worker, vm);
        if (fl_vm_lazy(vm))
            fl_touches_look(worker, vm);
        if (vm->phase != FL_VM_GONE && vm->parks.count > 0)
            fl_parks_expire(vm, worker->now);
    }
}

static uint64_t next_due(struct fl_worker *worker)
{
    uint64_t due = fl_parks_next_due(worker);
    uint64_t task = fl_tasks_next_due(worker);
    due = task < due ? task : due;
    if ((worker->doubtful > 0 || worker->recorded > 0 ||
         fl_counter_get(&worker->stats.parked) > 0) &&
        worker->look_ns < due)
        due = worker->look_ns;
    if (worker->unwatched > 0 && worker->now + UNWATCHED_EVERY < due)
        due = worker->now + UNWATCHED_EVERY;
    return due;
}

static void block(struct fl_worker *worker)
{
    struct fl_vm *vm;
    struct fl_vm *next;
    cds_list_for_each_entry_safe(vm, next, &worker->hot, in_hot) cool_down(vm);
    uint64_t due = next_due(worker);
    if (due <= fl_now() || !fl_mailbox_sleep(&worker->mailbox))
        return;
    struct timespec left = fl_until(fl_now(), due);
    fl_rcu_offline();
    // Watches stay valid while we block: only this thread retires VMs.
    struct epoll_event events[EVENTS];
    int count =
        epoll_pwait2(worker->epoll_fd, events, EVENTS, due == FL_NEVER ? NULL : &left, NULL);
    fl_rcu_online();
    fl_mailbox_awake(&worker->mailbox);
    worker->now = fl_now();
    for (int i = 0; i < count; i++)
        dispatch(worker, events[i].data.ptr);
}

void fl_worker_work(struct fl_worker *worker)
{
    static const struct timespec at_once = {0};
    struct fl_spin spin;
    fl_spin_init(&spin, worker->options->spin_us * FL_NS_PER_US);
    for (unsigned round = 0; !worker->stopping; round++) {
        worker->now = fl_now();
        bool busy = fl_mailbox_drain(&worker->mailbox, worker);
        if (round % POLL_EVERY == 0 || cds_list_empty(&worker->hot))
            busy |= poll_events(worker, &at_once);
        bool served = read_hot(worker);
        busy |= fl_parks_run_due(worker);
        if ((!busy && !served) || round % TASK_EVERY == 0)
            busy |= fl_tasks_run(worker);
        look(worker);
        bury(worker);
        fl_rcu_quiescent();
        if (served)
            fl_spin_served(&spin, worker->now);
        else if (!busy && !fl_spin_on(&spin, worker->now))
            block(worker);
    }
}

uint64_t fl_worker_oldest_wait(struct fl_worker *worker)
{
    struct fl_vm *vm;
    uint64_t oldest = FL_NEVER;
    cds_list_for_each_entry(vm, &worker->owned, in_worker)
    {
        uint64_t since = fl_parks_oldest(vm);
        oldest = since < oldest ? since : oldest;
    }
    return oldest < worker->now ? worker->now - oldest : 0;
}
