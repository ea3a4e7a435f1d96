// SPDX-License-Identifier: Apache-2.0
//
// From a request to the function that answers it: what there is, by which door, and for whom.
// Control thread only.
#ifndef FAULTLINE_CONTROL_ROUTES_H
#define FAULTLINE_CONTROL_ROUTES_H

#include <microhttpd.h>
#include <stddef.h>

#include "engine/control/control_options.h"

struct fl_acceptor;
struct fl_checkpoints;
struct fl_control_clients;
struct fl_health;

// By which door a request has come, and what it may reach there.
struct fl_visit {
    struct fl_acceptor *acceptor;
    const struct fl_health *health;
    const struct fl_control_options *options;
    enum fl_door_kind door;
    struct fl_control_clients *clients; // that have come by this door
    struct fl_checkpoints *checkpoints;
    // Answers to others of this turn, which are good for this one, too; NULL: none are.
    struct MHD_Response **shared;
};

enum fl_shared { FL_SHARED_STATUS, FL_SHARED_METRICS, FL_SHARED_ANSWERS };

// As libmicrohttpd calls it: once with the headers, then with each part of the body, then at the
// end. *state is NULL at first.
enum MHD_Result fl_routes_take(const struct fl_visit *visit, struct MHD_Connection *client,
                               const char *url, const char *method, const char *data, size_t *size,
                               void **state);
// The request is over, answered or not.
void fl_routes_end(void **state);

#endif
