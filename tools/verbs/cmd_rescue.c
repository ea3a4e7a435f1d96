// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/host/answer_without_image.h"
#include "engine/rescue/orphan_look.h"
#include "engine/rescue/rescue_client.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/rescue.h"
#include "tools/verbs/rescue_abort.h"
#include "tools/verbs/verbs.h"

enum { LOOKS = 10, LOOK_MS = 50 };

// --- by the server ---

// Sets *ret_fd to the state for the server: the kept one, or a new one. A VM that is not to be
// served has no image, and its state has no regions.
static int make_state(const struct rescue *rescue, const struct fl_orphan *orphan, int *ret_fd)
{
    static const struct fl_layout none = {0};
    struct fl_vm_state *state = NULL;
    bool serve = rescue->action == RESCUE_SERVE;
    bool other = serve && orphan->state && strcmp(orphan->state->image, rescue->image) != 0;
    if (serve && orphan->state && !(other && rescue->dry_run)) { // a dry run changes no kept state
        if (other)
            snprintf(orphan->state->image, sizeof(orphan->state->image), "%s", rescue->image);
        *ret_fd = orphan->state_fd;
        return 0;
    }
    int error = fl_vm_state_create((uint64_t)orphan->pid, orphan->pid, serve ? rescue->image : "",
                                   serve ? &orphan->layout : &none, ret_fd, &state);
    if (!error)
        fl_vm_state_unmap(state);
    return error;
}

typedef int adopt_function(const char *control_path, const struct fl_rescue_request *request,
                           struct fl_error *ret_error);

// Returns 0, or -errno with a reason.
static int bring_to_server(adopt_function *bring, const struct rescue *rescue,
                           const struct fl_orphan *orphan, struct fl_error *ret_error)
{
    struct fl_rescue_request request = {
        .uffd = orphan->uffd, .pidfd = orphan->pidfd, .kill = rescue->action == RESCUE_KILL};
    if (orphan->ranges == 0)
        return fl_fail_plain(ret_error, -EINVAL, "it has no memory of its own");
    int error = make_state(rescue, orphan, &request.state_fd);
    if (error)
        return fl_fail(ret_error, error, "its state cannot be written");
    error = bring(rescue->control, &request, ret_error);
    if (request.state_fd != orphan->state_fd)
        close(request.state_fd);
    return error;
}

static int refuse_server(const struct fl_orphan *orphan, const char *reason)
{
    return cli_fail("rescue", "%s (pid %d) still waits: %s", orphan->name, (int)orphan->pid,
                    reason);
}

static int refuse_poison(void)
{
    return cli_fail("rescue", "this kernel cannot poison pages (Linux 6.6 can): use --kill");
}

// --- in this process ---

// Ignores the signals that would end this process. It may hold the last reference to the
// userfaultfd, and the VM's missing pages would read as zeros after that.
static void do_not_end(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

static uint64_t page_bytes(const struct fl_orphan *orphan)
{
    for (size_t i = 1; i < orphan->ranges; i++) {
        if (orphan->range[i].page_bytes != orphan->range[0].page_bytes)
            return 0;
    }
    return orphan->ranges > 0 ? orphan->range[0].page_bytes : 0;
}

static int condemn_here(const struct rescue *rescue, struct fl_orphan *orphan)
{
    struct fl_answered done;
    bool kill = rescue->action == RESCUE_KILL;
    if (kill && syscall(SYS_pidfd_send_signal, orphan->pidfd, SIGKILL, NULL, 0) != 0 &&
        errno != ESRCH)
        return cli_fail_errno("rescue", -errno, "cannot kill %s (pid %d)", orphan->name,
                              (int)orphan->pid);
    if (kill || orphan->ranges == 0)
        do_not_end();
    int error = fl_answer_without_image(orphan->uffd, page_bytes(orphan), kill, &done);
    if (error == -ENOSYS)
        return refuse_poison();
    if (error)
        return cli_fail_errno("rescue", error, "cannot answer the faults of %s (pid %d)",
                              orphan->name, (int)orphan->pid);
    rescue_report_condemned(rescue, orphan, &done);
    return EXIT_DONE;
}

static int act_on_orphan(const struct rescue *rescue, struct fl_orphan *orphan)
{
    struct fl_error reason;
    int error = bring_to_server(fl_rescue_send, rescue, orphan, &reason);
    if (error == 0) {
        rescue_report_served(rescue, orphan);
        return EXIT_DONE;
    }
    if (rescue->action == RESCUE_SERVE)
        return refuse_server(orphan, reason.text);
    rescue_say_here(rescue, orphan);
    return condemn_here(rescue, orphan);
}

// Prints what would be done, and refuses what act_on_orphan() would refuse.
static int only_say(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    struct fl_error reason;
    int error = bring_to_server(fl_rescue_ask, rescue, orphan, &reason);
    if (error && rescue->action == RESCUE_SERVE)
        return refuse_server(orphan, reason.text);
    if (error && rescue->action == RESCUE_POISON && !fl_answer_can_poison(orphan->uffd))
        return refuse_poison();
    rescue_report_plan(rescue, orphan);
    return EXIT_DONE;
}

// A server that has just refused the VM closes its copies of the descriptors a moment after its
// answer. So a Faultline counts as a holder only if it still holds the userfaultfd after some
// looks.
static int look_at_process(const struct rescue *rescue, struct fl_orphan *orphan,
                           struct fl_error *ret_error)
{
    for (unsigned i = 0;; i++) {
        int error = fl_orphan_look(rescue->pid, rescue->fd, orphan, ret_error);
        bool closing = !error && orphan->holders > 0 && !rescue->force &&
                       strcmp(orphan->holder[0].name, "faultline") == 0;
        if (!closing || i == LOOKS)
            return error;
        fl_orphan_close(orphan);
        poll(NULL, 0, LOOK_MS);
    }
}

static int run_rescue(struct rescue *rescue)
{
    struct fl_orphan orphan;
    struct fl_error reason;
    int error = look_at_process(rescue, &orphan, &reason);
    if (error == -ESRCH)
        return rescue_fail_gone(rescue->pid, reason.text);
    if (error)
        return cli_fail("rescue", "%s", reason.text);
    if (fl_proc_view() == FL_PROC_PART)
        cli_warn("rescue", "only the processes of this PID namespace can be seen, "
                           "and it is not the host's: a process outside may serve the VM");
    int status = rescue_check(rescue, &orphan);
    if (status == EXIT_DONE)
        status = rescue->dry_run ? only_say(rescue, &orphan) : act_on_orphan(rescue, &orphan);
    fl_orphan_close(&orphan);
    return status;
}

// --- arguments ---

struct arguments {
    struct rescue rescue;
    bool poison;
    bool kill;
    const char *abort;
    unsigned fd; // UINT_MAX: find it
};

static const struct verb_argument arguments[] = {{.name = "PID", .hint = CLI_PROCESS},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_TEXT(struct arguments, rescue.image, .name = "image", .value = "NAME", .hint = CLI_IMAGE,
             .help = "the image that the VM was restored from. Not needed if the VM's state was "
                     "kept, or if exactly one image of the store fits the pages that the VM has"),
    CLI_TEXT(struct arguments, rescue.store, .name = "store", .value = "DIR", .hint = CLI_DIRECTORY,
             .preset = DEFAULT_STORE, .environment = "FAULTLINE_STORE",
             .help = "the store with that image; the VM's pages are compared with it"),
    CLI_TEXT(struct arguments, rescue.regions, .name = "regions", .value = "JSON",
             .help = "which memory is which part of the image, as in Firecracker's handshake: "
                     "[{\"base_host_virt_addr\":N,\"size\":N,\"offset\":N, \"page_size\":N},...]. "
                     "Needed if the VM's pages do not tell it and no state was kept"),
    CLI_FLAG(struct arguments, rescue.nothing_removed, .name = "nothing-removed",
             .help =
                 "the guest has given no memory back since it was restored (it has no balloon)"),
    CLI_FLAG(struct arguments, poison, .name = "poison",
             .help = "serve nothing: a process that touches a missing page gets SIGBUS"),
    CLI_FLAG(struct arguments, kill, .name = "kill",
             .help = "serve nothing: kill the VMM, and end all waits for its memory"),
    CLI_TEXT(struct arguments, abort, .name = "abort", .value = "CONNECTION|DIR",
             .hint = CLI_DIRECTORY,
             .help = "no VM: end a FUSE connection, by its number or by where it is mounted, that "
                     "no server answers. Each thread that waits for a page of it gets SIGBUS, "
                     "never zeros"),
    CLI_COUNT(struct arguments, fd, .name = "fd", .value = "N", .low = 0, .high = INT_MAX,
              .help = "the descriptor of the userfaultfd, if the process has several"),
    CLI_FLAG(struct arguments, rescue.force, .name = "force",
             .help = "go on although another process holds the userfaultfd, another image was "
                     "kept, or the VM's pages are not the image's. With --abort: although a server "
                     "answers"),
    CLI_FLAG(struct arguments, rescue.dry_run, .name = "dry-run",
             .help = "print what would be done, or why it would be refused"),
    CLI_JSON(struct arguments, rescue.json),
    CLI_CONTROL(struct arguments, rescue.control),
    CLI_END,
};

static int take_pid(struct rescue *rescue, int argc, char **argv)
{
    uint64_t number = 0;
    if (optind + 1 != argc)
        return cli_usage("rescue", "it needs the number of one process");
    if (cli_parse_number(argv[optind], 1, INT_MAX, &number) != 0)
        return cli_usage("rescue", "'%s' is not the number of a process", argv[optind]);
    rescue->pid = (pid_t)number;
    return EXIT_DONE;
}

static int parse_rescue(struct arguments *args, int argc, char **argv)
{
    struct rescue *rescue = &args->rescue;
    int status = cli_parse(&verb_rescue, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (args->poison && args->kill)
        return cli_usage("rescue", "--poison and --kill exclude each other");
    if (rescue->image && strlen(rescue->image) >= FL_IMAGE_NAME_BYTES)
        return cli_usage("rescue", "no image has a name as long as '%s'", rescue->image);
    if (args->poison || args->kill)
        rescue->action = args->poison ? RESCUE_POISON : RESCUE_KILL;
    if (args->fd != UINT_MAX)
        rescue->fd = (int)args->fd;
    if (args->abort && (rescue->json || args->poison || args->kill))
        return cli_usage("rescue", "--abort takes no option but --force and --dry-run");
    if (args->abort)
        return optind == argc ? EXIT_DONE
                              : cli_usage("rescue", "--abort takes no argument '%s'", argv[optind]);
    return take_pid(rescue, argc, argv);
}

static int cmd_rescue(int argc, char **argv)
{
    struct arguments args = {.rescue = {.fd = -1}, .fd = UINT_MAX};
    int status = parse_rescue(&args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (cli_check_page_size("rescue") != EXIT_DONE)
        return EXIT_FAILED;
    return args.abort ? rescue_abort(&args.rescue, args.abort) : run_rescue(&args.rescue);
}

const struct verb verb_rescue = {
    .name = "rescue",
    .run = cmd_rescue,
    .summary = "take over a VM whose fault handler is gone",
    .synopsis = {"[OPTION...] PID", "--abort CONNECTION|DIR [--force] [--dry-run]"},
    .about = "Takes over a VM whose fault handler is gone, whatever handler that "
             "was. Takes the userfaultfd out of the process, finds the memory that "
             "is registered with it, and has a running server serve it. The VMM need "
             "not help. If it is not certain that the VM would get the right bytes, "
             "it refuses and says why. 'faultline doctor' finds such VMs. Run it as "
             "root on the host (docs/rescue.md).",
    .arguments = arguments,
    .options = options,
};
