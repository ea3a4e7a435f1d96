// SPDX-License-Identifier: Apache-2.0
//
// The options of the verbs that run an engine, and the options that say who may use a socket.
#ifndef FAULTLINE_TOOLS_VERBS_SERVE_OPTIONS_H
#define FAULTLINE_TOOLS_VERBS_SERVE_OPTIONS_H

#include "engine/server/server.h"
#include "tools/cli/option.h"

// Read the value of a CLI_OTHER option (see `take` in struct cli_option). The first argument is a
// uint64_t for --cache, an int for --nice, a struct fl_engine_options for --on-error, an enum
// fl_admission for --huge-page-admission, an enum fl_huge for --huge, an enum fl_call_filter_mode
// for --seccomp, a bool for an option that is on or off, an enum fl_log_level for --log-level, and
// a struct fl_socket_access for
// --owner and --mode.
const char *take_cache(void *bytes, const char *text);
const char *take_nice(void *nice, const char *text);
const char *take_on_error(void *engine, const char *text);
const char *take_admission(void *admission, const char *text);
const char *take_huge(void *huge, const char *text);
const char *take_seccomp(void *mode, const char *text);
const char *take_log_level(void *level, const char *text);
const char *take_on_off(void *flag, const char *text);
const char *take_orders(void *group_orders, const char *text);
const char *take_metrics(void *place, const char *text);
const char *take_owner(void *access, const char *text);
const char *take_mode(void *access, const char *text);

// The options of the control API: the structure is struct fl_control_options.
extern const struct cli_option api_options[];
// The options of both: the structure is struct fl_server_options.
extern const struct cli_option engine_options[];

// Sets the defaults.
void serve_options_init(struct fl_server_options *options);

#endif
