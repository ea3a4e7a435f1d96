// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/verbs/checkpoint.h"
#include "tools/verbs/verbs.h"

static const struct verb_argument arguments[] = {{.name = "VM"}, {.name = NULL}};
static const struct cli_option options[] = {
    CLI_TEXT(struct checkpoint_order, name, .name = "name", .value = "IMAGE", .hint = CLI_IMAGE,
             .help = "the new image's name: 1 to 128 of A-Z a-z 0-9 . _ -"),
    CLI_FLAG(struct checkpoint_order, keep_armed, .name = "keep-armed",
             .help = "go on noting what the guest writes to: the next checkpoint copies only that"),
    CLI_FLAG(struct checkpoint_order, live, .name = "live",
             .help = "VMs can be restored as soon as the VM is copied from, and not only when the "
                     "image is finished; if it fails in between, they end (docs/checkpoint.md)"),
    CLI_FLAG(struct checkpoint_order, external, .name = "external",
             .help = "pause and resume nothing: print 'pause', read 'paused' or 'abort', print "
                     "'resume', or 'frozen' with --leave-paused, for an orchestrator that has the API (docs/checkpoint.md)"),
    CLI_OTHER(struct checkpoint_order, vmstate, checkpoint_take_with, .name = "with",
              .value = "vmstate=PATH", .hint = CLI_FILE,
              .help = "with --external: the file with the state of the devices, which is written "
                      "when the orchestrator says 'paused'"),
    {.group = checkpoint_options, .at = 0},
    CLI_END,
};

static int parse_checkpoint(int argc, char **argv, struct checkpoint_order *order)
{
    int status = cli_parse(&verb_checkpoint, order, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return cli_usage("checkpoint", "exactly one VM is needed");
    if (!order->name)
        return cli_usage("checkpoint", "--name is missing");
    order->vm = argv[optind];
    status = checkpoint_check(order);
    if (status == EXIT_DONE && order->live && offered_make(order->name, 0, &order->offered) != 0)
        status = cli_fail("checkpoint", "there is no memory");
    return status;
}

static int cmd_checkpoint(int argc, char **argv)
{
    struct checkpoint_order order = {.verb = "checkpoint"};
    struct checkpoint_result result;
    struct fl_error error;
    int status = parse_checkpoint(argc, argv, &order);
    if (status != EXIT_DONE)
        return status;
    if (checkpoint_run(&order, &result, &error) != 0)
        status = checkpoint_fail(&order, &error);
    else
        status = checkpoint_print(&order, &result);
    checkpoint_end(&order, &result);
    return status;
}

const struct verb verb_checkpoint = {
    .name = "checkpoint",
    .run = cmd_checkpoint,
    .summary = "make an image of a VM that runs, which is paused for some milliseconds",
    .synopsis = {"--name IMAGE [OPTION...] VM", "--external --name IMAGE [OPTION...] VM"},
    .about = "Makes an image of the memory of a VM that a running server serves, as it is at one "
             "moment, with the state of its devices as the companion 'vmstate'. The VM is paused "
             "over the API of its Firecracker, for some milliseconds, and copied while it runs on. "
             "Only what changed since its own image costs space. VM is its number in 'faultline "
             "status', or pid:N.\n\n"
             "If anything fails, there is no image, and the VM runs on as if nothing had happened. "
             "A VM that was paused before stays paused.",
    .status = "0 if the image is in the store; 1 if it is not, after a sentence.",
    .arguments = arguments,
    .options = options,
};
