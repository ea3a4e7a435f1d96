// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/paths.h"
#include "tools/verbs/checkpoint.h"

enum { PAUSE_MS_MAX = 10 * 60 * 1000 };

static const char *take_drive(void *arg, const char *text)
{
    struct drives *drives = arg;
    if (drives->count == DRIVES_MAX)
        return "is one more than the 32 drives that a checkpoint can have";
    if (!*text)
        return "is not a path";
    drives->all[drives->count++] = (struct drive){.path = text, .source = -1, .clone = -1};
    return NULL;
}

const char *checkpoint_take_with(void *arg, const char *text)
{
    static const char known[] = CHECKPOINT_VMSTATE "=";
    const char **path = arg;
    if (strncmp(text, known, strlen(known)) != 0 || !text[strlen(known)])
        return "is not " CHECKPOINT_VMSTATE "=PATH";
    *path = text + strlen(known);
    return NULL;
}

const struct cli_option checkpoint_options[] = {
    CLI_TEXT(struct checkpoint_order, api, .name = "api", .value = "SOCKET", .hint = CLI_FILE,
             .help = "the API socket of the VM's Firecracker",
             .otherwise = "where its command line says"),
    CLI_TEXT(struct checkpoint_order, qmp, .name = "qmp", .value = "SOCKET", .hint = CLI_FILE,
             .help = "the VM is one of QEMU, and this a QMP socket of it that has no other client "
                     "(docs/qemu.md)"),
    CLI_TEXT(struct checkpoint_order, fifo_dir, .name = "fifo-dir", .value = "DIR",
             .hint = CLI_DIRECTORY,
             .help = "make the files that Firecracker and this command share below this directory, "
                     "which must be in the jail if there is one",
             .otherwise = "/run, /dev/shm, /tmp, /var/tmp or / of the VM's process; one in memory "
                          "before one on a disk"),
    CLI_OTHER(struct checkpoint_order, drives, take_drive, .name = "drive", .value = "FILE",
              .hint = CLI_FILE,
              .help = "clone this file behind a drive to FILE.IMAGE in the pause, on a file system "
                      "that can (FICLONE); can be repeated"),
    CLI_TEXT(struct checkpoint_order, base, .name = "base", .value = "IMAGE", .hint = CLI_IMAGE,
             .help =
                 "the VM, pid:N, is served by no server: it maps the memory file of this image, or "
                 "its template, privately, as Firecracker's File backend does. What it has "
                 "written is copied in the pause"),
    CLI_FLAG(struct checkpoint_order, full, .name = "full",
             .help = "copy all of the memory, also what an earlier --keep-armed knows not to have "
                     "changed"),
    CLI_FLAG(struct checkpoint_order, while_paused, .name = "while-paused",
             .help = "copy everything in the pause, without write protection: for VMs that map a "
                     "template. The pause is long"),
    CLI_LABEL(struct checkpoint_order, labels),
    CLI_FLAG(struct checkpoint_order, leave_paused, .name = "leave-paused",
             .help = "do not resume the VM: it goes on somewhere else, or when its owner resumes "
                     "it"),
    CLI_FLAG(struct checkpoint_order, replace, .name = "replace",
             .help = "replace an image of this name (otherwise that is an error)"),
    CLI_TIME_MS(struct checkpoint_order, timeout_ms, .name = "timeout", .value = "TIME", .low = 1,
                .high = HOUR_MS, .preset = "10m",
                .help = "give up if the memory is not copied within this time"),
    CLI_TIME_MS(struct checkpoint_order, pause_ms, .name = "max-pause", .value = "TIME", .low = 1,
                .high = PAUSE_MS_MAX, .preset = "10s",
                .help = "give up, and resume the VM, if the pause takes longer than this"),
    CLI_TEXT(struct checkpoint_order, store, .name = "store", .value = "DIR", .hint = CLI_DIRECTORY,
             .help = "the store", .otherwise = "that of the server"),
    CLI_FLAG(struct checkpoint_order, json, .name = "json",
             .help = "print events and the result as JSON, a line each (docs/json.md)"),
    CLI_FLAG(struct checkpoint_order, while_heard, .name = "while-heard",
             .help = "give up if the other end of the standard output is closed, or 'abort' comes "
                     "on the standard input, as --external does"),
    CLI_CONTROL(struct checkpoint_order, control),
    CLI_END,
};

int checkpoint_check(const struct checkpoint_order *order)
{
    const char *verb = order->verb;
    if (!fl_name_valid(order->name))
        return cli_usage(verb,
                         "--name: '%s' cannot name an image: 1 to %u of A-Z a-z 0-9 . _ - and not "
                         "starting with '.' or '-'",
                         order->name, FL_NAME_MAX);
    if (order->external && (order->api || order->fifo_dir))
        return cli_usage(verb, "--external cannot be used with --api or --fifo-dir: the "
                               "orchestrator has the API");
    if (order->qmp && (order->external || order->api || order->fifo_dir || order->base))
        return cli_usage(verb, "--qmp cannot be used with --external, --api, --fifo-dir or --base");
    if (order->vmstate && !order->external)
        return cli_usage(verb, "--with needs --external: otherwise the VMM writes the state where "
                               "it is told");
    if (order->base && (order->keep_armed || order->full || order->while_paused))
        return cli_usage(verb,
                         "--base cannot be used with --keep-armed, --full or "
                         "--while-paused: no engine tracks what that VM writes, and all of it "
                         "is copied in the pause");
    if (order->live && (order->replace || order->while_paused || order->base))
        return cli_usage(verb, "--live cannot be used with --replace, --while-paused or --base");
    if (order->while_paused && order->keep_armed)
        return cli_usage(verb, "--while-paused tracks no writes: it cannot be used with "
                               "--keep-armed");
    return EXIT_DONE;
}

int checkpoint_fail(const struct checkpoint_order *order, const struct fl_error *error)
{
    checkpoint_say_failed(order, error->text);
    if (error->text[0]) // else it was said where it happened
        cli_fail(order->verb, "%s", error->text);
    return EXIT_FAILED;
}
