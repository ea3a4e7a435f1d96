// SPDX-License-Identifier: Apache-2.0
//
// The verbs of the `faultline` command. Each lives in its own cmd_VERB.c and returns the exit
// status: 0 done, 1 failed (one sentence on stderr), 2 wrong use.
#ifndef FAULTLINE_TOOLS_CLI_VERB_H
#define FAULTLINE_TOOLS_CLI_VERB_H

// EXIT_INCOMPLETE: what was to be ended has ended, but not every VM has all of its memory.
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INCOMPLETE = 3 };

// argv[0] is the verb's name.
int cmd_pack(int argc, char **argv);
int cmd_unpack(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_optimize(int argc, char **argv);
int cmd_repair(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_gc(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_engine(int argc, char **argv);
int cmd_upgrade(int argc, char **argv);
int cmd_handler(int argc, char **argv);
int cmd_listen(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_rescue(int argc, char **argv);
int cmd_record(int argc, char **argv);
int cmd_status(int argc, char **argv);

#endif
