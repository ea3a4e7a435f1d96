// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Firecracker is told to pause the VM and to write its state, with a FIFO for
// its memory. When the file of the state is closed, Firecracker is on its way into open() of the
// FIFO, and there it waits, with all devices still: no other client of the API can resume the VM.
// The engine now protects what is left. Then the FIFO is opened, and Firecracker answers that it
// cannot be truncated. Only that answer proves that it was in there all the time; with any other
// the VM may have run meanwhile, and the capture is thrown away.
//
// The guest stands still for all of that, so nobody waits for an answer that the next request does
// not need: Firecracker has it already when it is done with the one before.
//
// Firecracker must never be left in open(). After a failure the FIFO is opened here, and the VM is
// resumed; if the command is killed, or Firecracker does not answer, the guard does that.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/verbs/checkpoint_steps.h"

enum { ASK_MS = 10000, RESUME_MS = 10000, SLACK_MS = 5000 };

// --- before anything is touched ---

static int check_peer(struct run *run, struct fl_error *ret_error)
{
    char vm[CHECKPOINT_VM_TEXT];
    struct meeting_peer *peer = &run->peer;
    peer->api = run->api;
    int error = firecracker_peer(run->api, &peer->pid, &peer->uid, &peer->gid, ret_error);
    if (!error && peer->pid != run->result->vm.pid)
        return fl_fail_plain(ret_error, -EINVAL,
                             "process %d listens at %s, but %s is process %d: --api must name the "
                             "socket of the VM's own Firecracker",
                             (int)peer->pid, run->api, checkpoint_vm_text(&run->result->vm, vm),
                             (int)run->result->vm.pid);
    return error;
}

static int check_state(struct run *run, struct fl_error *ret_error)
{
    struct firecracker_info info;
    int error = firecracker_describe(run->api, ASK_MS, &info, ret_error);
    if (error)
        return error;
    if (info.state == FIRECRACKER_NOT_STARTED)
        return fl_fail_plain(ret_error, -EINVAL, "the Firecracker at %s has not started its VM",
                             run->api);
    run->result->was_paused = info.state == FIRECRACKER_PAUSED;
    if (strpbrk(info.version, "=\n") == NULL)
        snprintf(run->result->label, sizeof(run->result->label), "firecracker=%s", info.version);
    return 0;
}

static int fc_prepare(struct run *run, struct fl_error *ret_error)
{
    const struct checkpoint_order *order = run->order;
    run->api =
        order->api ? strdup(order->api) : checkpoint_find_api(run->result->vm.pid, ret_error);
    if (!run->api)
        return order->api ? fl_fail(ret_error, -ENOMEM, "%s cannot be asked", order->api) : -ENOENT;
    int error = check_peer(run, ret_error);
    if (!error)
        error = check_state(run, ret_error);
    if (!error)
        error = meeting_make(&run->peer, order->fifo_dir, &run->meeting, ret_error);
    return error;
}

// --- the pause ---

// Says why it was answered before the FIFO was opened here.
static int say_too_early(struct run *run, struct fl_error *ret_error)
{
    if (firecracker_create_end(&run->creation, ret_error) == FIRECRACKER_CUT_SHORT)
        return fl_fail_plain(ret_error, -EBUSY,
                             "another process has opened the FIFO of the checkpoint, %s in the "
                             "VM's process",
                             run->meeting.fifo_seen);
    return -EREMOTEIO;
}

static bool is_written(struct run *run)
{
    return meeting_is_written(&run->meeting) || firecracker_is_answered(&run->creation);
}

static int have_state_written(struct run *run, struct fl_error *ret_error)
{
    struct stat status;
    const struct firecracker_creation creation = {.vmstate = run->meeting.vmstate_seen,
                                                  .memory = run->meeting.fifo_seen,
                                                  .pauses = run->paused};
    int error = firecracker_create_begin(
        run->api, &creation, (unsigned)run->order->pause_ms + SLACK_MS, &run->creation, ret_error);
    if (!error)
        error = run_wait(run, is_written, "Firecracker has not paused the VM and written its state",
                         ret_error);
    if (error)
        return error;
    if (firecracker_is_answered(&run->creation))
        return say_too_early(run, ret_error);
    if (fstat(run->meeting.vmstate, &status) < 0 || status.st_size == 0)
        return fl_fail_plain(ret_error, -EPROTO,
                             "Firecracker has written nothing as the state of the VM");
    run->result->vmstate = fcntl(run->meeting.vmstate, F_DUPFD_CLOEXEC, 0);
    if (run->result->vmstate < 0)
        return fl_fail(ret_error, -errno, "the state of the VM cannot be kept");
    snprintf(run->vmstate, sizeof(run->vmstate), "/proc/self/fd/%d", run->result->vmstate);
    return 0;
}

static int fc_stop(struct run *run, struct fl_error *ret_error)
{
    struct guard_orders *orders = run->meeting.guard.orders;
    run_pause_begins(run);
    run->paused = !run->result->was_paused; // as soon as it may be
    atomic_store(&orders->pausing, run->paused);
    atomic_store(&orders->paused, run->paused);
    int error = have_state_written(run, ret_error);
    if (!error)
        atomic_store(&orders->pausing, false);
    return error;
}

static void note_resumed(struct run *run)
{
    run->paused = false;
    atomic_store(&run->meeting.guard.orders->paused, false);
}

static int resume(struct run *run, struct fl_error *ret_error)
{
    if (!run->paused)
        return 0;
    int error = firecracker_resume(run->api, RESUME_MS, ret_error);
    if (error)
        return error;
    note_resumed(run);
    return 0;
}

// From here on neither this command nor its guard resumes it: it may go on somewhere else.
static void leave_paused(struct run *run)
{
    run->result->left_paused = run->paused;
    note_resumed(run);
}

// Ends what was begun before the FIFO was opened, also of a capture that is thrown away.
static int end_resumption(struct run *run, struct fl_error *ret_error)
{
    int error = firecracker_resume_end(&run->resumption, ret_error);
    if (!error)
        note_resumed(run);
    return error;
}

static int fc_go_on(struct run *run, struct fl_error *ret_error)
{
    if (firecracker_is_answered(&run->creation))
        return say_too_early(run, ret_error);
    bool resumes = run->paused && !run->order->leave_paused;
    int error =
        resumes ? firecracker_resume_begin(run->api, RESUME_MS, &run->resumption, ret_error) : 0;
    if (error)
        return error;
    error = meeting_open(&run->meeting);
    if (error)
        return fl_fail(ret_error, error, "the FIFO of the checkpoint cannot be opened");
    if (firecracker_create_end(&run->creation, ret_error) != FIRECRACKER_CUT_SHORT)
        error = -EREMOTEIO;
    if (resumes) {
        int resumed = end_resumption(run, error ? NULL : ret_error);
        error = error ? error : resumed;
    }
    if (!error && run->order->leave_paused)
        leave_paused(run);
    run->result->pause_ms = (double)(fl_now() - run->paused_at) / (double)FL_NS_PER_MS;
    if (!error)
        checkpoint_say(run->order, run->order->leave_paused ? "frozen" : "resumed");
    return error;
}

// --- after a failure ---

// Appends to a sentence.
static void add(struct fl_error *error, const char *more)
{
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof(error->text) - used, "%s", more);
}

static void fc_undo(struct run *run, struct fl_error *error)
{
    struct firecracker_info info;
    meeting_release(&run->meeting);
    firecracker_drop(&run->resumption);
    int resumed = resume(run, NULL);
    if (resumed == -ETIMEDOUT) {
        add(error, "; the VM cannot be resumed yet, and a process that was left behind tries on");
        meeting_leave(&run->meeting);
    } else if (resumed && firecracker_describe(run->api, ASK_MS, &info, NULL) == 0 &&
               info.state == FIRECRACKER_PAUSED) {
        add(error, "; AND THE VM IS STILL PAUSED: Firecracker does not resume it");
    }
    firecracker_drop(&run->creation);
}

static void fc_end(struct run *run)
{
    meeting_end(&run->meeting);
    free(run->api);
    run->api = NULL;
}

const struct pauser pauser_firecracker = {
    .prepare = fc_prepare,
    .stop = fc_stop,
    .go_on = fc_go_on,
    .undo = fc_undo,
    .end = fc_end,
};
