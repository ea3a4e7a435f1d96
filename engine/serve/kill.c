// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/kill.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/close_thread.h"
#include "engine/base/io_pool.h"
#include "engine/base/log.h"
#include "engine/host/memory_owner.h"
#include "engine/host/uffd.h"
#include "engine/serve/vm_image.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"

// A look for the process, from a reader thread over the control thread back to the VM's worker. It
// knows the VM by its number: the VM may end meanwhile.
struct hunt {
    struct fl_io_job job;
    struct fl_mail mail;
    const struct fl_killer *killer;
    uint64_t vm;
    int uffd;
    bool prove;
    pid_t likely;
    int error;
    struct fl_memory_owner found;
    struct fl_layout layout;
};

static void hunt_free(struct hunt *hunt)
{
    fl_close_later(hunt->uffd);
    fl_close_later(hunt->found.pidfd);
    free(hunt);
}

static void hunt_drop(struct fl_mail *mail)
{
    hunt_free(caa_container_of(mail, struct hunt, mail));
}

// --- the worker's part ---

static void kill_give_up(struct fl_vm *vm, const char *why)
{
    char path[FL_VM_PATH];
    vm->death = FL_DEATH_IN_VAIN;
    fl_log(FL_LOG_ERROR,
           "event=kill_failed vm=%" PRIu64 " image=%s pid=%" PRId64 " reason=\"%s\" file=%s",
           vm->id, fl_vm_image_name(vm), vm->state->pid, why, fl_vm_file(vm, path));
    fl_uffd_wake_all(vm->uffd); // threads whose faults were put off fault again, and get SIGBUS
}

static bool kill_send(struct fl_vm *vm)
{
    char path[FL_VM_PATH];
    if (vm->pidfd < 0 || syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0) != 0)
        return false;
    vm->death = FL_DEATH_SIGNALLED;
    vm->death_ns = fl_now();
    vm->killed_pid = vm->state->pid;
    fl_log(FL_LOG_ERROR, "event=kill vm=%" PRIu64 " image=%s pid=%" PRId64 " reason=\"%s\" file=%s",
           vm->id, fl_vm_image_name(vm), vm->state->pid, vm->kill_reason, fl_vm_file(vm, path));
    return true;
}

// The number of the descriptor stays the VM's for as long as it lives, as others read it.
static void hunt_take_owner(struct fl_shard *shard, struct fl_vm *vm, struct fl_memory_owner *owner)
{
    if (vm->pidfd >= 0) {
        fl_shard_unwatch(shard, vm->pidfd);
        dup3(owner->pidfd, vm->pidfd, O_CLOEXEC);
    } else {
        vm->pidfd = owner->pidfd;
        owner->pidfd = -1;
    }
    fl_shard_watch(shard, vm->pidfd, EPOLLIN, &vm->watch_exit);
    vm->state->pid = owner->pid;
    vm->state->flags |= FL_VM_STATE_OWNER;
}

static void hunt_ended(struct fl_shard *shard, struct fl_vm *vm, struct hunt *hunt)
{
    bool killed_before = !hunt->error && hunt->found.pid == vm->killed_pid;
    if (!hunt->error && !killed_before)
        hunt_take_owner(shard, vm, &hunt->found);
    if (vm->death != FL_DEATH_SOUGHT || (!hunt->error && !killed_before && kill_send(vm)))
        return;
    kill_give_up(vm, killed_before ? "its process got SIGKILL, and its memory is still there"
                     : hunt->error == -ENOTUNIQ
                         ? "several processes may have its memory"
                         : "no process that can be seen here has its memory");
}

static void hunt_back_at_worker(void *owner, struct fl_mail *mail)
{
    struct hunt *hunt = caa_container_of(mail, struct hunt, mail);
    struct fl_vm *vm = fl_vms_find(hunt->killer->vms, hunt->vm);
    if (vm && vm->owner != owner) { // it went to another worker meanwhile
        fl_mailbox_post(&vm->owner->mailbox, &hunt->mail);
        return;
    }
    if (vm && vm->phase != FL_VM_GONE)
        hunt_ended(owner, vm, hunt);
    hunt_free(hunt);
}

// --- the others' parts ---

static void hunt_back_at_control(void *control, struct fl_mail *mail)
{
    struct hunt *hunt = caa_container_of(mail, struct hunt, mail);
    struct fl_vm *vm = fl_vms_find(hunt->killer->vms, hunt->vm);
    if (!vm || !vm->owner) {
        hunt_free(hunt);
        return;
    }
    if (!hunt->error)
        hunt->killer->found(control, vm, hunt->found.pidfd);
    hunt->mail.deliver = hunt_back_at_worker;
    fl_mailbox_post(&vm->owner->mailbox, &hunt->mail);
}

static uint64_t hunt_look(struct fl_io_job *job)
{
    struct hunt *hunt = caa_container_of(job, struct hunt, job);
    hunt->error =
        fl_memory_owner_find(hunt->uffd, &hunt->layout, hunt->likely, hunt->prove, &hunt->found);
    hunt->mail.deliver = hunt_back_at_control;
    fl_mailbox_post(hunt->killer->control, &hunt->mail);
    return 0;
}

static bool hunt_begin(const struct fl_killer *killer, struct fl_vm *vm, bool prove)
{
    struct hunt *hunt = calloc(1, sizeof(*hunt));
    int uffd = hunt ? fcntl(vm->uffd, F_DUPFD_CLOEXEC, 0) : -1;
    if (uffd < 0) {
        free(hunt);
        return false;
    }
    hunt->killer = killer;
    hunt->vm = vm->id;
    hunt->uffd = uffd;
    hunt->prove = prove;
    hunt->likely = (pid_t)vm->state->pid;
    hunt->layout = vm->state->layout;
    hunt->found.pidfd = -1;
    hunt->mail.drop = hunt_drop;
    hunt->job.run = hunt_look;
    fl_io_pool_submit(killer->io_pool, &hunt->job);
    return true;
}

void fl_kill_find(const struct fl_killer *killer, struct fl_vm *vm)
{
    hunt_begin(killer, vm, false);
}

static void hunt_seek(const struct fl_killer *killer, struct fl_vm *vm)
{
    vm->death = FL_DEATH_SOUGHT;
    vm->death_ns = fl_now();
    if (!hunt_begin(killer, vm, true))
        kill_give_up(vm, "the host is out of memory or descriptors");
}

bool fl_kill(const struct fl_killer *killer, struct fl_vm *vm, const char *reason)
{
    if (vm->death == FL_DEATH_NONE) {
        snprintf(vm->kill_reason, sizeof(vm->kill_reason), "%s", reason);
        if (!(vm->state->flags & FL_VM_STATE_OWNER) || !kill_send(vm))
            hunt_seek(killer, vm);
        if (vm->owner)
            fl_shard_doubt(vm->owner, vm);
    }
    return vm->death != FL_DEATH_IN_VAIN;
}

// A VMM opens its guest after the handshake, and perhaps after the first page that fails: so it is
// looked for at each, but in no more than a twentieth of the time.
static bool runs_guest(struct fl_vm *vm)
{
    enum { SHARE = 20 };
    uint64_t now = fl_now();
    if (vm->kvm || now < vm->kvm_look_ns || vm->state->pid <= 0)
        return vm->kvm;
    vm->kvm = fl_memory_owner_has_kvm((pid_t)vm->state->pid);
    vm->kvm_look_ns = now + SHARE * (fl_now() - now);
    return vm->kvm;
}

bool fl_kill_wanted(struct fl_vm *vm)
{
    switch (vm->on_error) {
    case FL_ON_ERROR_POISON:
        return false;
    case FL_ON_ERROR_KILL:
        return true;
    case FL_ON_ERROR_AUTO:
        break;
    }
    return runs_guest(vm);
}

void fl_kill_look(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->death != FL_DEATH_SIGNALLED || shard->now < vm->death_ns + FL_KILL_GRACE)
        return;
    hunt_seek(shard->killer, vm); // another process may share the memory
}
