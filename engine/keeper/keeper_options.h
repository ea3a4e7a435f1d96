// SPDX-License-Identifier: Apache-2.0
//
// What a keeper is started with, and the variable by which one keeper names itself to the next.
#ifndef FAULTLINE_KEEPER_KEEPER_OPTIONS_H
#define FAULTLINE_KEEPER_KEEPER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/call_filter.h"
#include "engine/keeper/keeper_settings.h"
#include "engine/base/log_level.h"

struct fl_keeper_options {
    char *const *argv;   // of `faultline serve`, NULL-terminated: engines get the same options
    const char *control; // path of the control API
    const char *sockets; // the directory of the images' sockets
    const char *files;   // where to mount images as files; NULL: nowhere
    const char *config;  // the configuration file; NULL: none
    bool config_must_exist;
    struct fl_settings settings; // what was read of it; the keeper closes them
    uint64_t stop_timeout_ms;    // for VMs to be filled at the end
    uint64_t hang_timeout_ms;    // after which an engine that does not answer is killed
    uint64_t fault_timeout_ms;   // after which an engine resolves every fault, one way or the other
    uint64_t trial_ms;           // for which an upgraded engine must live
    bool replace;                // the server at `control` if there is one: take all that it has
    const char *ready_file; // there while an engine that this keeper started serves; NULL: none
    struct fl_call_filter_options filter;
    enum fl_log_level log_level;
};

// The variable that names the descriptor of a list of what a keeper hands to itself over an exec.
#define FL_KEEPER_ENVIRONMENT "FAULTLINE_KEEPER"

#endif
