// SPDX-License-Identifier: Apache-2.0
//
// From a handshake that is complete to a VM: who is behind it, does it fit the image, is it served
// already.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <urcu/compiler.h>

#include "engine/accept/admission.h"
#include "engine/accept/attach.h"
#include "engine/accept/connection_internal.h"
#include "engine/accept/displace.h"
#include "engine/accept/refuse.h"
#include "engine/accept/rejoin.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/io_pool.h"
#include "engine/base/log.h"
#include "engine/host/memory_owner.h"
#include "engine/host/presence.h"
#include "engine/host/uffd.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "engine/template/template.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

enum { REASON_BYTES = 256 };
#define BUSY_PAUSE (2 * FL_NS_PER_MS)
#define DISPLACE_PATIENCE (5 * FL_NS_PER_S) // for a VM to end whose memory it was before

static int check_fit(const struct fl_connection *connection, const struct fl_image *image,
                     char *reason)
{
    uint64_t page = 1ULL << connection->layout.page_shift;
    uint64_t room = (fl_image_bytes(image) + page - 1) / page * page;
    uint64_t end = fl_layout_file_end(&connection->layout);
    if (connection->template && connection->layout.page_shift != FL_PAGE_SHIFT) {
        snprintf(reason, REASON_BYTES, "its pages are of 2 MiB, but those of a template of 4 KiB");
        return -EINVAL;
    }
    // Regions do not overlap in the file: those that are as large as it are all of it.
    uint64_t all = connection->layout.pages << connection->layout.page_shift;
    bool part = connection->part || connection->acceptor->engine->options.allow_part;
    if (end <= room && (part || all == room))
        return 0;
    if (end <= room)
        snprintf(reason, REASON_BYTES,
                 "its regions have %llu bytes, but the image has %llu: is it of another VM? "
                 "(--allow-part takes those that have a part)",
                 (unsigned long long)all, (unsigned long long)fl_image_bytes(image));
    else
        snprintf(reason, REASON_BYTES,
                 "its regions end at byte %llu of the memory file, but the image has %llu",
                 (unsigned long long)end, (unsigned long long)fl_image_bytes(image));
    return -EINVAL;
}

// Its userfaultfd is that of a VM that there is.
static void attach_again(struct fl_connection *connection, struct fl_vm *vm, struct fl_image *image)
{
    struct fl_engine *engine = connection->acceptor->engine;
    const char *reason =
        fl_rejoin_differs(vm, image, connection->template != NULL, &connection->layout);
    fl_images_put(engine->images, image);
    if (reason) {
        fl_connection_refuse(connection, reason);
        return;
    }
    int socket = fl_connection_own_socket(connection);
    fl_rejoin(engine, vm, &connection->peer);
    fl_connection_settled(connection, socket);
}

static void attach(struct fl_connection *connection, struct fl_image *image)
{
    char reason[REASON_BYTES];
    struct fl_engine *engine = connection->acceptor->engine;
    struct fl_vm *served = fl_attach_find(engine, connection->peer.uffd);
    if (served) {
        attach_again(connection, served, image);
        return;
    }
    const char *why = check_fit(connection, image, reason) != 0 ? reason : connection->untrue;
    if (why) {
        fl_images_put(engine->images, image);
        fl_connection_refuse(connection, why);
        return;
    }
    int socket = fl_connection_own_socket(connection);
    connection->peer.template = connection->template;
    if (fl_attach(engine, &connection->peer, image, &connection->layout) != 0) {
        fl_images_put(engine->images, image);
        fl_refuse(engine, &connection->peer, connection->image,
                  "the host is out of memory or descriptors");
    }
    FL_CRASH_POINT("attached");
    fl_connection_settled(connection, socket);
}

static void refuse(struct fl_connection *connection, const char *reason)
{
    if (connection->opened)
        fl_images_put(connection->acceptor->engine->images, connection->opened);
    fl_connection_refuse(connection, reason);
}

static void say_why_unopened(const struct fl_connection *connection, char reason[REASON_BYTES])
{
    char why[REASON_BYTES];
    int error = connection->open_error;
    if (error == FL_NO_STORE_NOW)
        fl_store_place_why(connection->acceptor->place, why, sizeof(why));
    else if (error == -EMFILE || error == -ENFILE)
        snprintf(why, sizeof(why), "%s", fl_no_descriptors);
    else
        snprintf(why, sizeof(why), "%s", fl_image_strerror(error));
    snprintf(reason, REASON_BYTES, "the image cannot be opened: %.*s", REASON_BYTES - 40, why);
}

// --- room in the pool ---

static void counted(void *control, struct fl_mail *mail)
{
    char reason[REASON_BYTES];
    struct fl_engine *engine = control;
    struct fl_connection *connection = caa_container_of(mail, struct fl_connection, mail);
    struct fl_image *image = connection->counting;
    connection->looking = false;
    connection->counting = NULL;
    const char *why =
        connection->doomed               ? connection->doomed
        : connection->acceptor->refusing ? fl_no_new_vm
        : fl_admission_holds(engine, connection->peer.huge_need, reason, sizeof(reason)) ? NULL
                                                                                         : reason;
    if (!why) {
        attach(connection, image);
        return;
    }
    fl_images_put(engine->images, image);
    fl_connection_refuse(connection, why);
}

static uint64_t count(struct fl_io_job *job)
{
    struct fl_connection *connection = caa_container_of(job, struct fl_connection, job);
    struct fl_engine *engine = connection->acceptor->engine;
    if (fl_admission_count(engine, connection->counting, &connection->layout,
                           &connection->peer.huge_need) == -EBUSY)
        return fl_now() + BUSY_PAUSE;
    connection->mail.deliver = counted;
    fl_mailbox_post(&engine->control, &connection->mail);
    return 0;
}

// One that is to be refused waits for that.
static void admit(struct fl_connection *connection, struct fl_image *image)
{
    struct fl_engine *engine = connection->acceptor->engine;
    if (engine->options.admission != FL_ADMISSION_REFUSE ||
        !fl_admission_asks(engine, &connection->layout) ||
        fl_attach_find(engine, connection->peer.uffd)) {
        attach(connection, image);
        return;
    }
    connection->looking = true;
    connection->counting = image;
    connection->job.run = count;
    fl_io_pool_submit(engine->io_pool, &connection->job);
}

static void use_image(struct fl_connection *connection)
{
    char reason[REASON_BYTES];
    struct fl_acceptor *acceptor = connection->acceptor;
    if (connection->open_error) {
        say_why_unopened(connection, reason);
        fl_connection_refuse(connection, reason);
    } else if (acceptor->refusing) {
        refuse(connection, fl_no_new_vm);
    } else {
        admit(connection, acceptor->raw ? fl_image_ref(acceptor->raw) : connection->opened);
    }
}

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
    engine->unowned += error != 0;
    if (!error || (engine->unowned & (engine->unowned - 1)) != 0)
        return;
    fl_log(
        FL_LOG_WARNING,
        "event=owner_unknown image=%s peer=%" PRId64 " times=%" PRIu64
        " reason=\"%s: it cannot be killed, only poisoned, nor can be seen what was there before\"",
        connection->image, peer, engine->unowned,
        error == -ENOTUNIQ ? "its memory may be any one's of several processes"
                           : "no process that can be seen here has its memory");
}

static void looked(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_connection *connection = caa_container_of(mail, struct fl_connection, mail);
    connection->looking = false;
    tell_owner(connection, connection->peer_pid);
    if (connection->doomed)
        refuse(connection, connection->doomed);
    else if (connection->template)
        fl_connection_use_template(connection);
    else
        use_image(connection);
}

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

// Pages of memory that is not registered with the userfaultfd would be zeros, and nobody asked.
static const char *check_registered(const struct fl_connection *connection)
{
    if (!connection->owner.complete)
        return "not all memory of its regions is registered with its userfaultfd";
    if (!owns_all(connection->peer.uffd, &connection->layout))
        return "memory of its regions is registered with another userfaultfd";
    return NULL;
}

static const char *check_untouched(const struct fl_connection *connection)
{
    // A template's pages are rightly there before anybody asks.
    if (!connection->template && is_touched(&connection->owner, &connection->layout))
        return "some of its memory was there before the handshake, and would stay as it is: it "
               "must not be mapped under mlockall(MCL_FUTURE) or with MAP_POPULATE, or be touched "
               "before it is registered";
    return NULL;
}

// Who connected need not be the one whose memory it is, and then it is nobody to watch or to kill.
static void find_owner(struct fl_connection *connection)
{
    struct fl_peer *peer = &connection->peer;
    connection->peer_pid = peer->pid;
    connection->owner_error = fl_memory_owner_find(peer->uffd, &connection->layout,
                                                   (pid_t)peer->pid, false, &connection->owner);
    connection->sought = true;
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
    if (connection->owner_error)
        return;
    if (!connection->untrue)
        connection->untrue = check_untouched(connection);
    fl_close_later(peer->pidfd);
    peer->pidfd = owner->pidfd;
    peer->pid = owner->pid;
    peer->owner = true;
    // A hole that is punched into a file tells those who map it nothing.
    peer->told = owner->complete && !owner->shared && fl_uffd_tells_removes(peer->uffd);
}

static uint64_t look(struct fl_io_job *job)
{
    struct fl_connection *connection = caa_container_of(job, struct fl_connection, job);
    struct fl_acceptor *acceptor = connection->acceptor;
    struct fl_engine *engine = acceptor->engine;
    if (!connection->sought)
        find_owner(connection);
    if (waits_for_end(connection))
        return fl_now() + BUSY_PAUSE;
    use_owner(connection);
    if (!connection->template && !acceptor->raw)
        connection->open_error =
            fl_images_get(engine->images, connection->image, &connection->opened);
    connection->mail.deliver = looked;
    fl_mailbox_post(&engine->control, &connection->mail);
    return 0;
}

void fl_connection_use_template(struct fl_connection *connection)
{
    struct fl_images *images = connection->acceptor->engine->images;
    struct fl_image *image = connection->template->image;
    connection->unattached = image == NULL;
    if (image && connection->acceptor->refusing)
        fl_connection_refuse(connection, fl_no_new_vm);
    else if (image)
        attach(connection, fl_images_use(images, image));
}

void fl_connection_look(struct fl_connection *connection)
{
    connection->looking = true;
    connection->job.run = look;
    fl_io_pool_submit(connection->acceptor->engine->io_pool, &connection->job);
}
