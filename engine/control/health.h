// SPDX-License-Identifier: Apache-2.0
//
// Whether the server lives (/healthz) and whether it takes new VMs (/readyz), for probes of
// orchestrators. docs/control-api.md says what each means. Control thread only.
#ifndef FAULTLINE_CONTROL_HEALTH_H
#define FAULTLINE_CONTROL_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/control/control_options.h"

struct fl_health {
    struct fl_acceptor *acceptor;
    uint64_t silence_ns; // workers that have not answered for so long make no progress
    struct fl_control_ops ops;
};

// Plain text, from malloc; NULL without memory. *ret_well: false: the answer is 503.
char *fl_health_live(const struct fl_health *health, bool *ret_well);
char *fl_health_ready(const struct fl_health *health, bool *ret_well);

#endif
