// SPDX-License-Identifier: Apache-2.0
//
// The control API: HTTP and JSON on a unix socket, for curl and for the verbs. Control thread only.
//
//   GET               /v1/status      what the engine does, with all VMs
//   GET, POST, DELETE /v1/listeners   where it listens for which image
//   GET, POST, DELETE /v1/histories   of which VMs a history is kept, and each of them
//   GET, POST, DELETE /v1/recordings  of which images the next VMs are recorded, and the results
//   GET, POST, DELETE /v1/templates   which images are in memory for VMs to share
//   POST              /v1/drain       no new VM; {"populate": true}: VMs are filled and let go
//   POST              /v1/upgrade     another engine takes over
//   GET               /metrics        for Prometheus
//
// docs/control-api.md says what each takes and answers.
// An error is {"error": "one sentence"} with a fitting HTTP status.
#ifndef FAULTLINE_CONTROL_CONTROL_H
#define FAULTLINE_CONTROL_CONTROL_H

#include <stdint.h>

#include "snapshot/error.h"

struct fl_control;
struct fl_acceptor;

int fl_control_start(struct fl_acceptor *acceptor, const char *path,
                     struct fl_control **ret_control, struct fl_error *ret_error);
// Listens anew if its path does not lead to it any more: 0, or -errno with a sentence. Clients that
// are connected are cut off when it does.
int fl_control_look(struct fl_control *control, struct fl_error *ret_error);
void fl_control_stop(struct fl_control *control); // NULL is allowed, here and below

// Does what is to be done without waiting.
void fl_control_run(struct fl_control *control);
uint64_t fl_control_next_due(struct fl_control *control);

#endif
