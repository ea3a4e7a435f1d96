// SPDX-License-Identifier: Apache-2.0
//
// The keeper: the small process above the engine. It holds what the engine would lose if it died
// (keeper_records.h), starts engines, and sees that one of them serves. It reads nothing that came
// from a VM, and touches no guest page. One thread.
//
// Two engines run: one serves, the other (the standby) is ready to, and owns nothing. When the one
// that serves dies, hangs or yields to a newer one, the standby is sent all records and serves.
#ifndef FAULTLINE_KEEPER_KEEPER_H
#define FAULTLINE_KEEPER_KEEPER_H

#include <stdbool.h>

#include "engine/keeper/keeper_options.h"

// True if something is handed to this process that VMs may depend on.
bool fl_keeper_is_successor(void);
// Keeps until SIGTERM, SIGINT or SIGHUP has ended the engine (then no VM depends on it any more),
// or SIGUSR1 has told it to leave everything as it is. The exit status of the process.
int fl_keeper_run(const struct fl_keeper_options *options);

#endif
