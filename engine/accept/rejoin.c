// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/rejoin.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/peer.h"
#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/link/keeper_link.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

static bool same_layout(const struct fl_layout *a, const struct fl_layout *b)
{
    return a->page_shift == b->page_shift && a->regions == b->regions &&
           memcmp(a->region, b->region, a->regions * sizeof(a->region[0])) == 0;
}

// A VM of a predecessor's may still wait for its image.
static bool same_image(const struct fl_vm *vm, const struct fl_image *image)
{
    if (strcmp(vm->state->image, fl_image_name(image)) != 0)
        return false;
    if (!vm->image)
        return true;
    return fl_image_same(vm->image, image);
}

const char *fl_rejoin_differs(const struct fl_vm *vm, const struct fl_image *image, bool template,
                              const struct fl_layout *layout)
{
    if (fl_vm_refused(vm))
        return "its userfaultfd came before, with a handshake that was refused";
    if (!same_image(vm, image))
        return "its userfaultfd is served already, from another image";
    if (!same_layout(&vm->state->layout, layout) ||
        template != ((vm->state->flags & FL_VM_STATE_TEMPLATE) != 0))
        return "its userfaultfd is served already, for other regions";
    return NULL;
}

// --- the new socket ---

// The VM may end meanwhile: it is known by its number.
struct new_socket {
    struct fl_mail mail;
    struct fl_engine *engine;
    uint64_t vm;
    int socket;
};

// The number of the descriptor stays the VM's for as long as it lives, as others read it.
static void put_socket(struct fl_shard *shard, struct fl_vm *vm, int *socket)
{
    if (vm->socket >= 0) {
        if (shard)
            fl_shard_unwatch(shard, vm->socket);
        dup3(*socket, vm->socket, O_CLOEXEC);
    } else {
        vm->socket = *socket;
        *socket = -1;
    }
    if (shard)
        fl_shard_watch(shard, vm->socket, EPOLLRDHUP, &vm->watch_socket);
}

static void socket_came(void *owner, struct fl_mail *mail)
{
    struct new_socket *new = caa_container_of(mail, struct new_socket, mail);
    struct fl_vm *vm = fl_vms_find(&new->engine->vms, new->vm);
    if (vm && vm->owner != owner) { // it went to another worker meanwhile
        fl_mailbox_post(&vm->owner->mailbox, &new->mail);
        return;
    }
    if (vm && vm->phase != FL_VM_GONE)
        put_socket(owner, vm, &new->socket);
    fl_close_later(new->socket);
    free(new);
}

static void drop_socket(struct fl_mail *mail)
{
    struct new_socket *new = caa_container_of(mail, struct new_socket, mail);
    fl_close_later(new->socket);
    free(new);
}

// Without memory it stays as it is: the process itself is watched, too.
static void hand_socket(struct fl_engine *engine, struct fl_vm *vm, int *socket)
{
    struct new_socket *new = vm->owner ? malloc(sizeof(*new)) : NULL;
    if (!vm->owner) // its image is still being opened
        put_socket(NULL, vm, socket);
    if (!new)
        return;
    *new = (struct new_socket){.mail = {.deliver = socket_came, .drop = drop_socket},
                               .engine = engine,
                               .vm = vm->id,
                               .socket = *socket};
    *socket = -1;
    fl_mailbox_post(&vm->owner->mailbox, &new->mail);
}

void fl_rejoin(struct fl_engine *engine, struct fl_vm *vm, struct fl_peer *peer)
{
    fl_log(FL_LOG_INFO,
           "event=rejoin vm=%" PRIu64 " image=%s pid=%" PRId64
           " reason=\"its userfaultfd is served already\"",
           vm->id, fl_vm_image_name(vm), vm->state->pid);
    fl_keeper_link_put_vm_slot(engine->keeper_link, vm->id, FL_VM_SOCKET, peer->socket,
                               peer->connection);
    FL_CRASH_POINT("vm_rejoined");
    hand_socket(engine, vm, &peer->socket);
    fl_peer_close(peer);
}
