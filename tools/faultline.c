// SPDX-License-Identifier: Apache-2.0
//
// The `faultline` command: the table of its verbs, from which dispatch, help, man pages and
// completion are made.
#include "engine/base/title.h"
#include "tools/cli/dispatch.h"
#include "tools/cli/output.h"
#include "tools/verbs/verbs.h"

// clang-format off
const struct verb *const verb_table[] = {
    &verb_pack,
    &verb_unpack,
    &verb_verify,
    &verb_repair,
    &verb_ls,
    &verb_inspect,
    &verb_trace,
    &verb_optimize,
    &verb_recompress,
    &verb_rm,
    &verb_gc,
    &verb_push,
    &verb_pull,
    &verb_serve,
    &verb_engine,
    &verb_mounter,
    &verb_handler,
    &verb_listen,
    &verb_checkpoint,
    &verb_fork,
    &verb_record,
    &verb_template,
    &verb_warm,
    &verb_huge,
    &verb_status,
    &verb_top,
    &verb_report,
    &verb_drain,
    &verb_upgrade,
    &verb_doctor,
    &verb_rescue,
    &verb_config,
    &verb_help,
    NULL,
};
// clang-format on

int main(int argc, char **argv)
{
    output_begin();
    argv = fl_title_begin(argc, argv);
    int status = verb_run(verb_table, argc, argv);
    return output_end(argc > 1 && argv[1][0] != '-' ? argv[1] : NULL, status);
}
