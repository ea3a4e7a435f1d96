// SPDX-License-Identifier: Apache-2.0
//
// The verbs of the command, one file cmd_VERB.c each. argv[0] of a verb's function is its name. It
// returns an exit status (tools/cli/exit_status.h), or CLI_HELPED if it has only printed its help,
// and runs in the main thread.
#ifndef FAULTLINE_TOOLS_VERBS_VERBS_H
#define FAULTLINE_TOOLS_VERBS_VERBS_H

#include "tools/cli/verb.h"

extern const struct verb verb_checkpoint;
extern const struct verb verb_config;
extern const struct verb verb_doctor;
extern const struct verb verb_drain;
extern const struct verb verb_engine;
extern const struct verb verb_fork;
extern const struct verb verb_gc;
extern const struct verb verb_handler;
extern const struct verb verb_help;
extern const struct verb verb_huge;
extern const struct verb verb_inspect;
extern const struct verb verb_listen;
extern const struct verb verb_ls;
extern const struct verb verb_mounter;
extern const struct verb verb_optimize;
extern const struct verb verb_pack;
extern const struct verb verb_pull;
extern const struct verb verb_push;
extern const struct verb verb_record;
extern const struct verb verb_recompress;
extern const struct verb verb_repair;
extern const struct verb verb_report;
extern const struct verb verb_rescue;
extern const struct verb verb_rm;
extern const struct verb verb_serve;
extern const struct verb verb_status;
extern const struct verb verb_template;
extern const struct verb verb_top;
extern const struct verb verb_trace;
extern const struct verb verb_unpack;
extern const struct verb verb_upgrade;
extern const struct verb verb_verify;
extern const struct verb verb_warm;

// All of them, in the order of the help, and NULL (tools/faultline.c).
extern const struct verb *const verb_table[];

#endif
