// SPDX-License-Identifier: Apache-2.0
#include "engine/control/control_clients.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "engine/base/clock.h"

#define LONGEST_REQUEST (20 * FL_NS_PER_S)

struct client {
    struct cds_list_head link;
    int fd;
    uint64_t since_ns; // it came, or its last answer was sent
};

void fl_control_clients_init(struct fl_control_clients *clients, unsigned most)
{
    clients->most = most;
    CDS_INIT_LIST_HEAD(&clients->list);
    clients->count = 0;
}

static void forget_client(struct fl_control_clients *clients, struct client *client)
{
    cds_list_del_init(&client->link);
    clients->count--;
}

// libmicrohttpd closes it, and lets us know.
static void make_way(struct fl_control_clients *clients)
{
    struct client *oldest = cds_list_first_entry(&clients->list, struct client, link);
    shutdown(oldest->fd, SHUT_RDWR);
    forget_client(clients, oldest);
}

static void begin_client(struct fl_control_clients *clients, struct MHD_Connection *connection,
                         void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *client = info ? malloc(sizeof(*client)) : NULL;
    *context = client;
    if (!client)
        return;
    client->fd = info->connect_fd;
    client->since_ns = fl_now();
    cds_list_add_tail(&client->link, &clients->list);
    if (++clients->count > clients->most)
        make_way(clients);
}

void fl_control_clients_notify(void *arg, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode code)
{
    struct fl_control_clients *clients = arg;
    struct client *client = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        begin_client(clients, connection, context);
        return;
    }
    if (client && !cds_list_empty(&client->link))
        forget_client(clients, client);
    free(client);
    *context = NULL;
}

// NULL: it has none, or was left out before.
static struct client *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct client *client = info ? info->socket_context : NULL;
    return client && !cds_list_empty(&client->link) ? client : NULL;
}

void fl_control_clients_answered(struct fl_control_clients *clients,
                                 struct MHD_Connection *connection)
{
    struct client *client = client_of(connection);
    if (!client)
        return;
    client->since_ns = fl_now();
    cds_list_del(&client->link);
    cds_list_add_tail(&client->link, &clients->list);
}

void fl_control_clients_excuse(struct fl_control_clients *clients,
                               struct MHD_Connection *connection)
{
    struct client *client = client_of(connection);
    if (client)
        forget_client(clients, client);
}

void fl_control_clients_expire(struct fl_control_clients *clients, uint64_t now)
{
    while (fl_control_clients_next_due(clients) <= now)
        make_way(clients);
}

uint64_t fl_control_clients_next_due(struct fl_control_clients *clients)
{
    if (cds_list_empty(&clients->list))
        return FL_NEVER;
    return cds_list_first_entry(&clients->list, struct client, link)->since_ns + LONGEST_REQUEST;
}
