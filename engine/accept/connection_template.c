// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/connection_template.h"

#include <errno.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/connection.h"
#include "engine/accept/connection_attach.h"
#include "engine/accept/connection_handshake.h"
#include "engine/accept/refuse.h"
#include "engine/base/crash_point.h"
#include "engine/base/fdpass.h"
#include "engine/link/keeper_link.h"
#include "engine/template/template.h"
#include "engine/template/templates.h"

static const char no_template[] = "there is no template of the image (any more)";
static const char bad_template[] = "the template cannot be read";

static int greet_client(struct fl_connection *connection)
{
    const struct fl_template *template = connection->template;
    connection->ungreeted = false;
    if (fl_connection_has_spoken(connection))
        return 0;
    fl_connection_expect_soon(connection); // what it waited for the template is no fault of its own
    int error = fl_send_greeting(connection->peer.socket, template->state->image,
                                 template->state->pages << FL_PAGE_SHIFT, template->readable);
    FL_CRASH_POINT("template_greeted");
    return error;
}

// A client that has sent nothing yet is told at once. What another has sent must be received, as
// there may be a userfaultfd with it.
void fl_connection_turn_away(struct fl_connection *connection, const char *reason)
{
    connection->doomed = reason;
    if (fl_connection_is_with_reader(connection->state)) // then it is refused
        return;
    if (connection->state == FL_CONNECTION_WAITING) {
        fl_connection_refuse(connection, reason);
        return;
    }
    if (fl_connection_has_spoken(connection)) {
        fl_connection_receive(connection);
        return;
    }
    fl_send_refusal(connection->peer.socket, reason);
    connection->acceptor->engine->counts->refused++;
    fl_image_count_refused(&connection->acceptor->engine->image_counting, connection->image);
    fl_refuse_log(connection->acceptor->engine, connection->image, connection->peer.pid, "none", 0,
                  reason);
    fl_connection_ended(connection);
}

// Before it is sent: the peer maps this one, whatever has the image's name when a successor sees
// it.
static void note_offered(struct fl_connection *connection)
{
    struct fl_keeper_link *keeper_link = connection->acceptor->engine->keeper_link;
    connection->offered = connection->template->id;
    if (!connection->peer.connection)
        return;
    int fd = fl_connection_describe(connection);
    fl_keeper_link_put_connection(keeper_link, connection->peer.connection, -1, fd);
    if (fd >= 0)
        close(fd);
}

void fl_connection_offer_template(struct fl_connection *connection)
{
    struct fl_acceptor *acceptor = connection->acceptor;
    struct fl_templates *templates = acceptor->engine->templates;
    struct fl_template *template = connection->offered
                                       ? fl_templates_of_record(templates, connection->offered)
                                       : fl_templates_find(templates, connection->image);
    if (!template || fl_service_refuses(acceptor->state)) {
        fl_connection_turn_away(connection,
                                fl_service_refuses(acceptor->state) ? fl_no_new_vm : no_template);
        return;
    }
    fl_template_hold(template);
    connection->template = template;
    if (!connection->offered)
        note_offered(connection);
    connection->ungreeted = !fl_template_ready(template);
    if (!connection->ungreeted && greet_client(connection) != 0)
        fl_connection_ended(connection);
}

void fl_connection_template_ready(struct fl_connection *connection, int error)
{
    bool waiting = connection->state == FL_CONNECTION_WAITING;
    if (error && error != -ECANCELED && (connection->ungreeted || waiting))
        fl_connection_turn_away(connection, bad_template);
    else if (waiting)
        fl_connection_use_template(connection);
    else if (connection->ungreeted && greet_client(connection) != 0)
        fl_connection_ended(connection);
}
