// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/refuse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/accept/attach.h"
#include "engine/accept/peer.h"
#include "engine/base/log.h"
#include "engine/host/uffd.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"

enum { PATH_LOGGED = 1024 };

static bool holds_waiters(const struct fl_peer *peer)
{
    struct fl_uffd_info info;
    if (peer->uffd < 0)
        return false;
    int error = fl_uffd_examine(peer->uffd, &info);
    return error ? error != -EINVAL : info.ready;
}

// False if no process can wait on it: then it is closed.
static bool keep_as(struct fl_engine *engine, uint64_t id, const char *image, struct fl_peer *peer,
                    uint64_t flags)
{
    // One that is served keeps its owner, also if another client sends it once more.
    if (!holds_waiters(peer) || fl_attach_find(engine, peer->uffd)) {
        fl_peer_close(peer);
        return false;
    }
    if (fl_attach_imageless(engine, id, peer, flags) != 0)
        fl_log(FL_LOG_ERROR,
               "event=refuse_failed vm=%" PRIu64
               " image=%s reason=\"out of memory: the VM's faults fail with its end\"",
               id, image);
    return true; // descriptors stay open: waiting is bad, zeros for bytes would be worse
}

static void keep_refused(struct fl_engine *engine, struct fl_peer *peer, const char *image)
{
    uint64_t connection = peer->connection;
    if (!keep_as(engine, engine->vms.next_id, image, peer, FL_VM_STATE_REFUSED) && connection)
        fl_keeper_link_drop(engine->keeper_link, FL_RECORD_CONNECTION, connection);
}

void fl_keep_refused(struct fl_engine *engine, struct fl_peer *peer)
{
    keep_refused(engine, peer, "-");
}

void fl_keep_unreadable(struct fl_engine *engine, struct fl_peer *peer, uint64_t id)
{
    if (!keep_as(engine, id, "-", peer, 0))
        fl_keeper_link_drop(engine->keeper_link, FL_RECORD_VM, id);
}

void fl_refuse_log(struct fl_engine *engine, const char *image, int64_t pid, const char *faults,
                   uint64_t vm, const char *reason)
{
    char path[PATH_LOGGED];
    char id[24] = "-";
    const char *file = engine->raw_file ? engine->raw_file
                                        : fl_images_path(engine->images, image, path, sizeof(path));
    if (vm)
        snprintf(id, sizeof(id), "%" PRIu64, vm);
    fl_log(FL_LOG_WARNING,
           "event=refuse image=%s pid=%" PRId64 " faults=%s reason=\"%s\" vm=%s file=%s", image,
           pid, faults, reason, id, file);
}

void fl_refuse(struct fl_engine *engine, struct fl_peer *peer, const char *image,
               const char *reason)
{
    engine->counts->refused++;
    fl_image_count_refused(&engine->image_counting, image);
    const struct fl_vm *served = peer->uffd >= 0 ? fl_attach_find(engine, peer->uffd) : NULL;
    const char *faults = served && !fl_vm_refused(served) ? "served"
                         : holds_waiters(peer)            ? "poisoned"
                                                          : "none";
    uint64_t vm = served ? served->id : *faults == 'p' ? engine->vms.next_id : 0;
    fl_refuse_log(engine, image, peer->pid, faults, vm, reason);
    keep_refused(engine, peer, image);
}

void fl_refuse_child(struct fl_engine *engine, int uffd)
{
    struct fl_peer peer = {.uffd = uffd, .pidfd = -1, .socket = -1};
    fl_refuse(engine, &peer, "-", "it is the child of a refused VM");
}
