// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/connection_look.h"

#include <errno.h>
#include <inttypes.h>

#include <urcu/compiler.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/connection.h"
#include "engine/accept/connection_attach.h"
#include "engine/accept/displace.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/host/presence.h"
#include "engine/host/transparent_huge.h"
#include "engine/host/uffd.h"
#include "engine/image/images.h"

#define BUSY_PAUSE (2 * FL_NS_PER_MS)
#define DISPLACE_PATIENCE (5 * FL_NS_PER_S) // for a VM to end whose memory it was before

// --- when the reader has looked ---

// The first, second, fourth ... of those that cannot be found: a peer can provoke them.
static void tell_owner(const struct fl_connection *connection, int64_t peer)
{
    struct fl_engine *engine = connection->acceptor->engine;
    int error = connection->owner_error;
    if (!error && connection->peer.pid != peer)
        fl_log(FL_LOG_INFO,
               "event=owner image=%s pid=%" PRId64 " peer=%" PRId64
               " reason=\"another process did the handshake\"",
               connection->image, connection->peer.pid, peer);
    engine->counts->unowned += error != 0;
    if (!error || (engine->counts->unowned & (engine->counts->unowned - 1)) != 0)
        return;
    fl_log(FL_LOG_WARNING,
           "event=owner_unknown image=%s peer=%" PRId64 " times=%" PRIu64
           " reason=\"%s: the VM can be poisoned but not killed, and it cannot be seen which of "
           "its pages were there before\"",
           connection->image, peer, engine->counts->unowned,
           error == -ENOTUNIQ ? "several processes may have its memory"
                              : "no process that can be seen here has its memory");
}

static void connection_looked(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_connection *connection = caa_container_of(mail, struct fl_connection, mail);
    fl_connection_move(connection, FL_CONNECTION_DECIDING);
    tell_owner(connection, connection->peer_pid);
    if (connection->doomed)
        fl_connection_refuse_opened(connection, connection->doomed);
    else if (connection->template)
        fl_connection_use_template(connection);
    else
        fl_connection_use_image(connection);
}

// --- in the reader ---

// Only of memory that is registered with some userfaultfd, as to ask registers it. (The kernel
// registers no memory twice.)
static bool owns_all(int uffd, const struct fl_layout *layout)
{
    for (uint32_t i = 0; i < layout->regions; i++) {
        if (!fl_uffd_owns(uffd, layout->region[i].base, layout->region[i].bytes))
            return false;
    }
    return true;
}

static bool is_touched(const struct fl_memory_owner *owner, const struct fl_layout *layout)
{
    struct fl_presence presence;
    uint64_t address = 0;
    int present = 0;
    if (fl_presence_open(owner->pid, owner->pidfd, &presence) != 0)
        return false;
    for (uint32_t i = 0; i < layout->regions && present <= 0; i++) {
        const struct fl_region *region = &layout->region[i];
        present = fl_presence_first_present(&presence, region->base, region->base + region->bytes,
                                            &address);
    }
    fl_presence_close(&presence);
    return present > 0;
}

// Pages of memory that is not registered with the userfaultfd would be zeros, and raise no fault.
// Of a process that has just ended nothing is registered any more: its VM is one that comes and
// goes.
static const char *check_registered(const struct fl_connection *connection)
{
    if (connection->owner.complete && owns_all(connection->peer.uffd, &connection->layout))
        return NULL;
    if (!fl_uffd_alive(connection->peer.uffd))
        return NULL;
    if (!connection->owner.complete)
        return "not all memory of its regions is registered with its userfaultfd";
    return "memory of its regions is registered with another userfaultfd";
}

static const char *check_untouched(const struct fl_connection *connection)
{
    // A template's pages are rightly there before the first fault.
    if (!connection->template && is_touched(&connection->owner, &connection->layout))
        return "some of its pages were there before the handshake and would not be filled: do not "
               "map the memory under mlockall(MCL_FUTURE) or with MAP_POPULATE, and do not touch "
               "it before it is registered";
    return NULL;
}

// The process that connected need not be the one that has the memory, and then it must be neither
// watched nor killed.
static void find_owner(struct fl_connection *connection)
{
    struct fl_peer *peer = &connection->peer;
    connection->peer_pid = peer->pid;
    connection->owner_error = fl_memory_owner_find(peer->uffd, &connection->layout,
                                                   (pid_t)peer->pid, false, &connection->owner);
    connection->sought = true;
}

static void judge_owner(struct fl_connection *connection)
{
    if (!connection->owner_error)
        connection->untrue = check_registered(connection);
    connection->give_up_ns = fl_now() + DISPLACE_PATIENCE;
}

// True while a VM that had the memory before may still write there.
static bool waits_for_end(struct fl_connection *connection)
{
    if (connection->owner_error || connection->untrue ||
        !fl_displace(connection->acceptor->engine, connection->owner.pid, connection->peer.uffd,
                     &connection->layout))
        return false;
    if (fl_now() < connection->give_up_ns)
        return true;
    connection->untrue = "a VM that is served with another userfaultfd has some of its memory";
    return false;
}

static void use_owner(struct fl_connection *connection)
{
    const struct fl_memory_owner *owner = &connection->owner;
    struct fl_peer *peer = &connection->peer;
    // What it says of its reserve counts if it is seen: what others are promised rests on it.
    peer->reserved = peer->reserved && !connection->owner_error && !owner->unreserved;
    if (connection->owner_error)
        return;
    if (!connection->untrue)
        connection->untrue = check_untouched(connection);
    fl_close_later(peer->pidfd);
    peer->pidfd = owner->pidfd;
    peer->pid = owner->pid;
    peer->owner = true;
    // A hole that is punched into a file is not told to processes that map it.
    peer->alone = owner->complete && !owner->shared;
    peer->told = peer->alone && fl_uffd_tells_removes(peer->uffd);
    peer->anonymous = peer->alone && !owner->file;
    peer->transparent = peer->alone && owner->transparent && fl_transparent_huge_by_fault();
}

static uint64_t look_at_connection(struct fl_io_job *job)
{
    struct fl_connection *connection = caa_container_of(job, struct fl_connection, job);
    struct fl_acceptor *acceptor = connection->acceptor;
    struct fl_engine *engine = acceptor->engine;
    if (!connection->sought)
        find_owner(connection);
    if (FL_HELD("owner_found"))
        return fl_now() + BUSY_PAUSE;
    if (connection->give_up_ns == 0)
        judge_owner(connection);
    if (waits_for_end(connection))
        return fl_now() + BUSY_PAUSE;
    use_owner(connection);
    if (!connection->template && !acceptor->raw)
        connection->open_error =
            fl_images_get(engine->images, connection->image, &connection->opened);
    connection->mail.deliver = connection_looked;
    fl_mailbox_post(&engine->control, &connection->mail);
    return 0;
}

void fl_connection_look(struct fl_connection *connection)
{
    fl_connection_move(connection, FL_CONNECTION_LOOKING);
    connection->job.run = look_at_connection;
    fl_io_pool_submit(connection->acceptor->engine->io_pool, &connection->job);
}
