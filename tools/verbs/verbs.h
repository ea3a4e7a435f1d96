// SPDX-License-Identifier: Apache-2.0
//
// The verbs of the command, one file cmd_VERB.c each. argv[0] is the verb's name. A verb returns an
// exit status (tools/cli/exit_status.h), or CLI_HELPED if it has only printed its help. It runs in
// the main thread.
#ifndef FAULTLINE_TOOLS_VERBS_VERBS_H
#define FAULTLINE_TOOLS_VERBS_VERBS_H

int cmd_doctor(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_engine(int argc, char **argv);
int cmd_gc(int argc, char **argv);
int cmd_handler(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_listen(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_optimize(int argc, char **argv);
int cmd_pack(int argc, char **argv);
int cmd_record(int argc, char **argv);
int cmd_repair(int argc, char **argv);
int cmd_rescue(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_unpack(int argc, char **argv);
int cmd_upgrade(int argc, char **argv);
int cmd_verify(int argc, char **argv);

#endif
