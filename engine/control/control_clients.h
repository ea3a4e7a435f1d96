// SPDX-License-Identifier: Apache-2.0
//
// The connections of a door, those that have said nothing whole for longest first: when there are
// many, these make way, so that slow and silent clients keep no other out. One whose request, with
// its answer, takes longer than 20 s is cut off in any case, however busy it is: a client
// that sends or reads a byte at a time never stays. Control thread only.
#ifndef FAULTLINE_CONTROL_CONTROL_CLIENTS_H
#define FAULTLINE_CONTROL_CONTROL_CLIENTS_H

#include <microhttpd.h>
#include <stdint.h>

#include <urcu/list.h>

struct fl_control_clients {
    struct cds_list_head list;
    unsigned count;
    unsigned most; // of them; constant
};

void fl_control_clients_init(struct fl_control_clients *clients, unsigned most);
// For MHD_OPTION_NOTIFY_CONNECTION.
void fl_control_clients_notify(void *clients, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode code);
// One of its requests has come to its end.
void fl_control_clients_answered(struct fl_control_clients *clients,
                                 struct MHD_Connection *connection);
// Its answer lasts as long as it lasts: it is not counted any more, and not cut off.
void fl_control_clients_excuse(struct fl_control_clients *clients,
                               struct MHD_Connection *connection);
// Cuts off those that take too long.
void fl_control_clients_expire(struct fl_control_clients *clients, uint64_t now);
// When to call it next; FL_NEVER.
uint64_t fl_control_clients_next_due(struct fl_control_clients *clients);

#endif
