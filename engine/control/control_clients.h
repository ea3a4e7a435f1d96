// SPDX-License-Identifier: Apache-2.0
//
// The connections of the control API, those that have said nothing whole for longest first: when
// there are many, these make way, so that slow and silent clients keep no other out. Control thread
// only.
#ifndef FAULTLINE_CONTROL_CONTROL_CLIENTS_H
#define FAULTLINE_CONTROL_CONTROL_CLIENTS_H

#include <microhttpd.h>

#include <urcu/list.h>

struct fl_control_clients {
    struct cds_list_head list;
    unsigned count;
};

void fl_control_clients_init(struct fl_control_clients *clients);
// For MHD_OPTION_NOTIFY_CONNECTION.
void fl_control_clients_notify(void *clients, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode code);
// One of its requests has come to its end.
void fl_control_clients_answered(struct fl_control_clients *clients,
                                 struct MHD_Connection *connection);

#endif
