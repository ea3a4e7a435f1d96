// SPDX-License-Identifier: Apache-2.0
//
// An orchestrator owns the API of its VMs: it is told when to pause and when to resume, on standard
// output, and says that it has on standard input, a word a line.
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/verbs/checkpoint_steps.h"

#define PAUSED "paused"
#define ABORT "abort"

static int external_prepare(struct run *run, struct fl_error *ret_error)
{
    (void)run;
    (void)ret_error;
    return 0;
}

// Reads what is there. True: a whole line, without its end, or the end of the input.
static bool has_answered(struct run *run)
{
    struct orchestrator *from = &run->orchestrator;
    struct pollfd poll_fd = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    while (poll(&poll_fd, 1, 0) == 1) {
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            return false;
        from->over = got <= 0;
        if (from->over || byte == '\n') {
            from->text[from->used] = '\0';
            from->asked = false;
            return true;
        }
        if (byte != '\r' && from->used < sizeof(from->text) - 1)
            from->text[from->used++] = byte;
    }
    return false;
}

bool checkpoint_is_unheard(const struct checkpoint_order *order)
{
    struct pollfd poll_fd = {.fd = STDOUT_FILENO};
    return order->external && poll(&poll_fd, 1, 0) == 1;
}

static int take_vmstate(struct run *run, struct fl_error *ret_error)
{
    const char *path = run->order->vmstate;
    struct stat status;
    if (!path)
        return 0;
    snprintf(run->vmstate, sizeof(run->vmstate), "%s", path);
    if (stat(path, &status) < 0)
        return fl_fail(ret_error, -errno, "the state of the VM, %s, was not written", path);
    if (!S_ISREG(status.st_mode) || status.st_size == 0)
        return fl_fail_plain(ret_error, -EINVAL,
                             "the state of the VM, %s, is not a regular file with something in it",
                             path);
    return 0;
}

static int external_stop(struct run *run, struct fl_error *ret_error)
{
    checkpoint_tell(run->order, "pause");
    run_pause_begins(run);
    run->orchestrator.asked = true;
    int error = run_wait(run, has_answered, "the orchestrator has not said that the VM is paused",
                         ret_error);
    const char *said = run->orchestrator.text;
    if (error)
        return error;
    if (run->orchestrator.over && !*said)
        return fl_fail_plain(ret_error, -ECANCELED,
                             "the orchestrator closed its end before the VM was paused");
    if (strcmp(said, ABORT) == 0)
        return fl_fail_plain(ret_error, -ECANCELED, "the orchestrator has aborted the checkpoint");
    if (strcmp(said, PAUSED) != 0)
        return fl_fail_plain(ret_error, -EPROTO,
                             "the orchestrator said '%s', and not '" PAUSED "' or '" ABORT "'",
                             said);
    return take_vmstate(run, ret_error);
}

static int external_go_on(struct run *run, struct fl_error *ret_error)
{
    (void)ret_error;
    checkpoint_tell(run->order, "resume");
    run->result->pause_ms = (double)(fl_now() - run->paused_at) / (double)FL_NS_PER_MS;
    return 0;
}

// The failure is told to the orchestrator, which resumes the VM then.
static void external_undo(struct run *run, struct fl_error *error)
{
    (void)run;
    (void)error;
}

static void external_end(struct run *run)
{
    (void)run;
}

const struct pauser pauser_external = {
    .prepare = external_prepare,
    .stop = external_stop,
    .go_on = external_go_on,
    .undo = external_undo,
    .end = external_end,
};
