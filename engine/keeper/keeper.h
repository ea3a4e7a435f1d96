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
#include <stdint.h>

struct fl_keeper_options {
    char *const *argv;        // of `faultline serve`, NULL-terminated: engines get the same options
    const char *control;      // path of the control API
    uint64_t stop_timeout_ms; // for VMs to be filled at the end
    uint64_t hang_timeout_ms; // after which an engine that does not answer is killed
    uint64_t fault_timeout_ms; // after which an engine resolves every fault, one way or the other
    uint64_t trial_ms;         // for which an upgraded engine must live
};

// The variable that names the descriptor of a list of what a keeper hands to itself over an exec.
#define FL_KEEPER_ENVIRONMENT "FAULTLINE_KEEPER"

// True if something is handed to this process that VMs may depend on.
bool fl_keeper_is_successor(void);
// Keeps until SIGTERM, SIGINT or SIGHUP has ended the engine (then no VM depends on it any more),
// or SIGUSR1 has told it to leave everything as it is. The exit status of the process.
int fl_keeper_run(const struct fl_keeper_options *options);

#endif
