// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The VM is stopped, and QEMU writes the state of its devices as a migration
// that leaves the memory out, to a descriptor that it is handed: no path, no shell. When that has
// completed nothing of QEMU writes to the guest's memory, until `cont`: a QEMU that has migrated is
// stopped, and goes on from there as if it had not.
//
// QEMU must never be left stopped. If the command is killed, a process that it has left behind
// cancels what it had begun and has the VM go on.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/verbs/checkpoint_steps.h"
#include "tools/verbs/left_behind.h"
#include "tools/verbs/qemu_api.h"

enum {
    GREET_MS = 5000,
    ASK_MS = 10000,
    RESUME_MS = 10000,
    LOOK_US = 500,
    STAND_IN_MS = 60000,
    TRIES = 10
};

// What the command tells the process that it leaves behind. Each is set before what it says can be
// so.
struct orders {
    atomic_bool stopped; // the VM may be stopped, and is to go on
    atomic_bool ignores; // x-ignore-shared was not set, and may be by now
    char path[PATH_MAX];
};

// One of them in a process.
static struct qemu_run {
    struct qmp qmp;
    struct orders *orders; // shared with the process that is left behind; NULL: not begun
    struct left_behind process;
    int state;     // a memfd; -1: none
    bool stopped;  // by this command
    bool migrates; // it may have begun to write
} qemu = {.qmp = {.fd = -1}, .state = -1};

// --- what is done if the command cannot ---

// Whatever QEMU was doing for the command comes to an end first.
static int set_right(struct qmp *qmp, struct orders *orders, unsigned timeout_ms,
                     struct fl_error *ret_error)
{
    bool running = false;
    int error = qemu_cancel(qmp, timeout_ms);
    if (error)
        return fl_fail_plain(ret_error, error, "the QEMU at %s does not answer", qmp->path);
    if (atomic_load(&orders->ignores))
        qemu_ignore_shared(qmp, false, NULL);
    atomic_store(&orders->ignores, false);
    if (!atomic_load(&orders->stopped))
        return 0;
    error = qemu_cont(qmp, timeout_ms, ret_error);
    if (!error)
        error = qemu_is_running(qmp, &running, ret_error);
    if (!error && !running)
        return fl_fail_plain(ret_error, -EAGAIN, "the QEMU at %s does not go on", qmp->path);
    if (!error)
        atomic_store(&orders->stopped, false);
    return error;
}

static void stand_in(const void *arg, int kept)
{
    struct orders *orders = (struct orders *)arg;
    struct qmp qmp;
    (void)kept;
    for (unsigned i = 0; i < TRIES; i++) {
        if (!atomic_load(&orders->stopped) && !atomic_load(&orders->ignores))
            return;
        int error = qmp_connect(orders->path, &qmp, NULL);
        if (!error)
            error = qmp_greet(&qmp, STAND_IN_MS, NULL);
        if (!error)
            error = set_right(&qmp, orders, STAND_IN_MS, NULL);
        qmp_close(&qmp);
        if (error == -ECONNREFUSED || error == -ENOENT)
            return; // it is gone
        if (error)
            poll(NULL, 0, ASK_MS / TRIES);
    }
}

// --- before anything is touched ---

static int start_guard(const char *path, struct fl_error *ret_error)
{
    struct orders *orders =
        mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (orders == MAP_FAILED)
        return fl_fail(ret_error, -errno, "a checkpoint cannot be begun");
    qemu.orders = orders;
    snprintf(orders->path, sizeof(orders->path), "%s", path);
    struct left_behind_work work = {.stand_in = stand_in, .arg = orders, .keep = -1};
    int error = left_behind_start(&work, &qemu.process);
    return error
               ? fl_fail(ret_error, error, "a process that guards the checkpoint cannot be started")
               : 0;
}

static int check_peer(const struct run *run, struct fl_error *ret_error)
{
    char vm[CHECKPOINT_VM_TEXT];
    if (qemu.qmp.pid == run->result->vm.pid)
        return 0;
    return fl_fail_plain(ret_error, -EINVAL,
                         "process %d listens at %s, but %s is process %d: --qmp must name a QMP "
                         "socket of the VM's own QEMU",
                         (int)qemu.qmp.pid, qemu.qmp.path, checkpoint_vm_text(&run->result->vm, vm),
                         (int)run->result->vm.pid);
}

static int check_idle(struct fl_error *ret_error)
{
    enum qemu_migration migration;
    int error = qemu_look(&qemu.qmp, &migration, ret_error);
    if (!error && migration == QEMU_MIGRATES)
        return fl_fail_plain(ret_error, -EBUSY, "the QEMU at %s is being migrated", qemu.qmp.path);
    return error;
}

static int check_qemu(struct run *run, struct fl_error *ret_error)
{
    bool running = false;
    bool ignores = false;
    int error = qemu_is_running(&qemu.qmp, &running, ret_error);
    if (!error)
        error = qemu_check_memory(&qemu.qmp, ret_error);
    if (!error)
        error = check_idle(ret_error);
    if (!error)
        error = qemu_ignores_shared(&qemu.qmp, &ignores, ret_error);
    if (!error && !ignores) {
        atomic_store(&qemu.orders->ignores, true);
        error = qemu_ignore_shared(&qemu.qmp, true, ret_error);
    }
    run->result->was_paused = !running;
    return error;
}

static int qemu_prepare(struct run *run, struct fl_error *ret_error)
{
    int error = start_guard(run->order->qmp, ret_error);
    if (!error)
        error = qmp_connect(run->order->qmp, &qemu.qmp, ret_error);
    qemu.qmp.gives_up = progress_interrupted;
    if (!error)
        error = check_peer(run, ret_error);
    if (!error)
        error = qmp_greet(&qemu.qmp, GREET_MS, ret_error);
    if (!error)
        error = check_qemu(run, ret_error);
    if (error)
        return error;
    snprintf(run->result->label, sizeof(run->result->label), "qemu=%s", qemu.qmp.version);
    qemu.state = memfd_create("faultline-vmstate", MFD_CLOEXEC);
    return qemu.state < 0 ? fl_fail(ret_error, -errno, "a file for the state cannot be made") : 0;
}

// --- the pause ---

static int wait_for_state(struct run *run, struct fl_error *ret_error)
{
    enum qemu_migration migration = QEMU_MIGRATES;
    for (;;) {
        int error = qemu_look(&qemu.qmp, &migration, ret_error);
        if (!error && migration == QEMU_FAILED)
            return -EREMOTEIO; // it has said why
        if (!error && migration == QEMU_MIGRATES_NOTHING)
            return fl_fail_plain(ret_error, -ECANCELED, "the QEMU at %s was told to write no state",
                                 qemu.qmp.path);
        if (error || migration == QEMU_HAS_MIGRATED)
            return error;
        error = run_check(run, "QEMU has not written the state of the VM", ret_error);
        if (error)
            return error;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_US * 1000}, NULL);
    }
}

static int keep_state(struct run *run, struct fl_error *ret_error)
{
    off_t bytes = lseek(qemu.state, 0, SEEK_END);
    if (bytes <= 0)
        return fl_fail_plain(ret_error, -EPROTO, "QEMU has written nothing as the state of the VM");
    run->result->vmstate = fcntl(qemu.state, F_DUPFD_CLOEXEC, 0);
    if (run->result->vmstate < 0)
        return fl_fail(ret_error, -errno, "the state of the VM cannot be kept");
    snprintf(run->vmstate, sizeof(run->vmstate), "/proc/self/fd/%d", run->result->vmstate);
    return 0;
}

static int qemu_stops(struct run *run, struct fl_error *ret_error)
{
    run_pause_begins(run);
    if (!run->result->was_paused) {
        atomic_store(&qemu.orders->stopped, true);
        qemu.stopped = true; // as soon as it may be
        int error = qemu_stop(&qemu.qmp, (unsigned)run->order->pause_ms, ret_error);
        if (error)
            return error;
    }
    qemu.migrates = true;
    int error = qemu_migrate(&qemu.qmp, qemu.state, ret_error);
    if (!error)
        error = wait_for_state(run, ret_error);
    if (!error)
        error = keep_state(run, ret_error);
    return error;
}

static int qemu_goes_on(struct run *run, struct fl_error *ret_error)
{
    bool leave = run->order->leave_paused;
    int error = qemu.stopped && !leave ? qemu_cont(&qemu.qmp, RESUME_MS, ret_error) : 0;
    if (error)
        return error;
    run->result->left_paused = qemu.stopped && leave;
    qemu.migrates = false;
    qemu.stopped = false;
    atomic_store(&qemu.orders->stopped, false);
    run->result->pause_ms = (double)(fl_now() - run->paused_at) / (double)FL_NS_PER_MS;
    checkpoint_say(run->order, leave ? "frozen" : "resumed");
    return 0;
}

// --- after a failure ---

static void qemu_undo(struct run *run, struct fl_error *error)
{
    (void)run;
    if (!qemu.orders || qemu.qmp.fd < 0 || !(qemu.stopped || qemu.migrates))
        return;
    qemu.qmp.gives_up = NULL;
    if (set_right(&qemu.qmp, qemu.orders, RESUME_MS, NULL) == 0) {
        qemu.stopped = false;
        return;
    }
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof(error->text) - used,
             "; the VM cannot be resumed yet, and a process that was left behind tries on");
    qmp_close(&qemu.qmp); // it is that process's now
    left_behind_leave(&qemu.process);
}

static void qemu_end(struct run *run)
{
    (void)run;
    if (qemu.qmp.fd >= 0 && atomic_load(&qemu.orders->ignores)) {
        qemu.qmp.gives_up = NULL;
        qemu_ignore_shared(&qemu.qmp, false, NULL);
    }
    qmp_close(&qemu.qmp);
    left_behind_dismiss(&qemu.process);
    if (qemu.orders)
        munmap(qemu.orders, sizeof(*qemu.orders));
    if (qemu.state >= 0)
        close(qemu.state);
    qemu.orders = NULL;
    qemu.state = -1;
}

const struct pauser pauser_qemu = {
    .prepare = qemu_prepare,
    .stop = qemu_stops,
    .go_on = qemu_goes_on,
    .undo = qemu_undo,
    .end = qemu_end,
};
