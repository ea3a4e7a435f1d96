// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/shard.h"

#include <errno.h>
#include <sys/epoll.h>

#include "engine/vm/vm.h"

void fl_shard_doubt(struct fl_shard *shard, struct fl_vm *vm)
{
    shard->doubtful += !vm->doubtful;
    vm->doubtful = true;
    shard->look_ns = 0;
}

void fl_shard_vm_gone(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->phase == FL_VM_GONE)
        return;
    vm->phase = FL_VM_GONE;
    cds_list_move(&vm->in_worker, &shard->dead);
}

int fl_shard_watch(struct fl_shard *shard, int fd, uint32_t events, struct fl_watch *watch)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(shard->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void fl_shard_unwatch(struct fl_shard *shard, int fd)
{
    if (fd >= 0)
        epoll_ctl(shard->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
