// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/service_state.h"

static const char *const name[FL_SERVICE_STATES] = {
    [FL_SERVICE_STANDBY] = "standby",   [FL_SERVICE_OPEN] = "open",
    [FL_SERVICE_REFUSING] = "refusing", [FL_SERVICE_RELEASING] = "releasing",
    [FL_SERVICE_STOPPING] = "stopping", [FL_SERVICE_CANCELLED] = "cancelled",
};

static const uint32_t follow[FL_SERVICE_STATES] = {
    [FL_SERVICE_STANDBY] = FL_TO(FL_SERVICE_OPEN) | FL_TO(FL_SERVICE_REFUSING) |
                           FL_TO(FL_SERVICE_RELEASING) | FL_TO(FL_SERVICE_CANCELLED),
    [FL_SERVICE_OPEN] =
        FL_TO(FL_SERVICE_REFUSING) | FL_TO(FL_SERVICE_RELEASING) | FL_TO(FL_SERVICE_STOPPING),
    [FL_SERVICE_REFUSING] = FL_TO(FL_SERVICE_RELEASING) | FL_TO(FL_SERVICE_STOPPING),
    [FL_SERVICE_RELEASING] = FL_TO(FL_SERVICE_STOPPING),
    [FL_SERVICE_STOPPING] = 0,
    [FL_SERVICE_CANCELLED] = FL_TO(FL_SERVICE_STOPPING),
};

const struct fl_states fl_service_states = {
    .object = "server", .name = name, .follow = follow, .count = FL_SERVICE_STATES};
