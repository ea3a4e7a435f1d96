// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/connection_attach.h"

#include <errno.h>

#include <urcu/compiler.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/admission.h"
#include "engine/accept/attach.h"
#include "engine/accept/connection.h"
#include "engine/accept/image_fit.h"
#include "engine/accept/refuse.h"
#include "engine/accept/rejoin.h"
#include "engine/accept/room.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "engine/template/template.h"

#define BUSY_PAUSE (2 * FL_NS_PER_MS)

// Its userfaultfd is that of a VM that there is.
static void rejoin_connection(struct fl_connection *connection, struct fl_vm *vm,
                              struct fl_image *image)
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

static void attach_connection(struct fl_connection *connection, struct fl_image *image)
{
    struct fl_error reason;
    struct fl_engine *engine = connection->acceptor->engine;
    bool part = connection->more.part || engine->options.allow_part;
    struct fl_vm *served = fl_attach_find(engine, connection->peer.uffd);
    if (served) {
        rejoin_connection(connection, served, image);
        return;
    }
    bool fits = fl_image_fit(&connection->layout, image, part, connection->template, &reason) == 0;
    const char *why = fits ? connection->untrue : reason.text;
    if (why) {
        fl_images_put(engine->images, image);
        fl_connection_refuse(connection, why);
        return;
    }
    // Its image is open now, which was not counted when it connected: before the VM is served, and
    // the next one connects.
    fl_room_look(connection->acceptor);
    int socket = fl_connection_own_socket(connection);
    connection->peer.template = connection->template;
    if (fl_attach(engine, &connection->peer, image, &connection->layout) != 0) {
        fl_images_put(engine->images, image);
        fl_refuse(engine, &connection->peer, connection->image,
                  "the host is out of memory or descriptors");
    } else {
        fl_histogram_add(&engine->counts->attach_ns, fl_now() - connection->begun_ns);
    }
    FL_CRASH_POINT("attached");
    fl_connection_settled(connection, socket);
}

// --- room in the pool ---

static void need_counted(void *control, struct fl_mail *mail)
{
    struct fl_error reason;
    struct fl_engine *engine = control;
    struct fl_connection *connection = caa_container_of(mail, struct fl_connection, mail);
    struct fl_image *image = connection->counting;
    fl_connection_move(connection, FL_CONNECTION_DECIDING);
    connection->counting = NULL;
    const char *why = connection->doomed                                ? connection->doomed
                      : fl_service_refuses(connection->acceptor->state) ? fl_no_new_vm
                      : fl_admission_holds(engine, connection->peer.huge_need, &reason)
                          ? NULL
                          : reason.text;
    if (!why) {
        attach_connection(connection, image);
        return;
    }
    fl_images_put(engine->images, image);
    fl_connection_refuse(connection, why);
}

static uint64_t count_need(struct fl_io_job *job)
{
    struct fl_connection *connection = caa_container_of(job, struct fl_connection, job);
    struct fl_engine *engine = connection->acceptor->engine;
    if (fl_admission_count(engine, connection->counting, &connection->layout,
                           &connection->peer.huge_need) == -EBUSY)
        return fl_now() + BUSY_PAUSE;
    connection->mail.deliver = need_counted;
    fl_mailbox_post(&engine->control, &connection->mail);
    return 0;
}

// One that is to be refused waits for that.
static void admit_connection(struct fl_connection *connection, struct fl_image *image)
{
    struct fl_engine *engine = connection->acceptor->engine;
    if (engine->options.admission != FL_ADMISSION_REFUSE ||
        !fl_admission_asks(engine, &connection->layout) || connection->peer.reserved ||
        fl_attach_find(engine, connection->peer.uffd)) {
        attach_connection(connection, image);
        return;
    }
    fl_connection_move(connection, FL_CONNECTION_COUNTING);
    connection->counting = image;
    connection->job.run = count_need;
    fl_io_pool_submit(engine->io_pool, &connection->job);
}

// --- its image ---

static void say_why_unopened(const struct fl_connection *connection, struct fl_error *ret_reason)
{
    struct fl_error why;
    int error = connection->open_error;
    if (error == FL_NO_STORE_NOW)
        fl_store_place_why(connection->acceptor->place, &why);
    else if (error == -EMFILE || error == -ENFILE)
        fl_fail_plain(&why, error, "%s", fl_no_descriptors);
    else
        fl_fail_plain(&why, error, "%s", fl_image_strerror(error));
    fl_fail_plain(ret_reason, error, "the image cannot be opened: %s", why.text);
}

void fl_connection_refuse_opened(struct fl_connection *connection, const char *reason)
{
    if (connection->opened)
        fl_images_put(connection->acceptor->engine->images, connection->opened);
    fl_connection_refuse(connection, reason);
}

void fl_connection_use_image(struct fl_connection *connection)
{
    struct fl_error reason;
    struct fl_acceptor *acceptor = connection->acceptor;
    if (connection->open_error) {
        say_why_unopened(connection, &reason);
        fl_connection_refuse(connection, reason.text);
    } else if (fl_service_refuses(acceptor->state)) {
        fl_connection_refuse_opened(connection, fl_no_new_vm);
    } else {
        admit_connection(connection,
                         acceptor->raw ? fl_image_ref(acceptor->raw) : connection->opened);
    }
}

void fl_connection_use_template(struct fl_connection *connection)
{
    struct fl_images *images = connection->acceptor->engine->images;
    struct fl_image *image = connection->template->image;
    if (!image && connection->state != FL_CONNECTION_WAITING)
        fl_connection_move(connection, FL_CONNECTION_WAITING);
    if (image && fl_service_refuses(connection->acceptor->state))
        fl_connection_refuse(connection, fl_no_new_vm);
    else if (image)
        attach_connection(connection, fl_images_use(images, image));
}
