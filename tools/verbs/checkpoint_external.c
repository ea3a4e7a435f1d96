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

// A line without its end, or what came before the end of the input.
static void take_line(struct orchestrator *from)
{
    from->line[from->used] = '\0';
    from->used = 0;
    if (strcmp(from->line, ABORT) == 0) {
        from->aborts = true;
    } else if (!from->answered && from->line[0]) {
        from->answered = true;
        strcpy(from->answer, from->line);
    }
}

// Reads what is there.
static void hear(struct orchestrator *from)
{
    struct pollfd poll_fd = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    while (!from->over && poll(&poll_fd, 1, 0) == 1) {
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        from->over = got <= 0;
        if (from->over || byte == '\n')
            take_line(from);
        else if (byte != '\r' && from->used < sizeof(from->line) - 1)
            from->line[from->used++] = byte;
    }
}

static bool has_answered(struct run *run)
{
    hear(&run->orchestrator);
    return run->orchestrator.answered || run->orchestrator.over;
}

bool checkpoint_has_orchestrator(const struct checkpoint_order *order)
{
    return order->external || order->while_heard;
}

bool checkpoint_is_unheard(const struct checkpoint_order *order)
{
    struct pollfd poll_fd = {.fd = STDOUT_FILENO};
    return checkpoint_has_orchestrator(order) && poll(&poll_fd, 1, 0) == 1;
}

bool checkpoint_is_aborted(struct run *run)
{
    if (checkpoint_has_orchestrator(run->order))
        hear(&run->orchestrator);
    return run->orchestrator.aborts;
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
    const struct orchestrator *from = &run->orchestrator;
    checkpoint_tell(run->order, "pause");
    run_pause_begins(run);
    int error = run_wait(run, has_answered, "the orchestrator has not said that the VM is paused",
                         ret_error);
    if (error)
        return error;
    if (!from->answered)
        return fl_fail_plain(ret_error, -ECANCELED,
                             "the orchestrator closed its end before the VM was paused");
    if (strcmp(from->answer, PAUSED) != 0)
        return fl_fail_plain(ret_error, -EPROTO,
                             "the orchestrator said '%s', and not '" PAUSED "' or '" ABORT "'",
                             from->answer);
    return take_vmstate(run, ret_error);
}

// One that leaves the VM paused is told, too, that what the image will be is certain.
static int external_go_on(struct run *run, struct fl_error *ret_error)
{
    (void)ret_error;
    checkpoint_tell(run->order, run->order->leave_paused ? "frozen" : "resume");
    run->result->left_paused = run->order->leave_paused;
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
