// SPDX-License-Identifier: Apache-2.0
#include "engine/keeper/keeper.h"

#include <errno.h>
#include <faultline_version.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "engine/base/call_filter.h"
#include "engine/base/descriptors.h"
#include "engine/base/log.h"
#include "engine/base/signals.h"
#include "engine/base/title.h"
#include "engine/keeper/keeper_internal.h"
#include "engine/keeper/service_manager.h"

enum { EVENTS = 16, BARRIER_MS = 5000 };

// --- signals ---

// Filled, unregistered and let go, or killed when the time is up: the engine does it.
static void stop_serving(struct fl_keeper *keeper)
{
    uint64_t now = fl_now();
    keeper->stop_ns =
        keeper->stopping ? now : now + keeper->options->stop_timeout_ms * FL_NS_PER_MS;
    if (!keeper->stopping) {
        fl_log(FL_LOG_INFO, "event=stopping vms=%" PRIu64, keeper->records.vms);
        fl_keeper_set_ready(keeper, false);
        fl_sm_notify("STOPPING=1\nSTATUS=VMs are being completed and let go");
    }
    keeper->stopping = true;
    if (keeper->serving && keeper->serving->phase == FL_CHILD_SERVING)
        fl_keeper_send(keeper->serving, FL_MESSAGE_STOP,
                       keeper->stop_ns > now ? (keeper->stop_ns - now) / FL_NS_PER_MS : 0);
}

// Before the store is left to itself: an engine that went on alone, until the service manager kills
// it, would take VMs that the store does not have. What it has said is stored.
static void end_engines(struct fl_keeper *keeper)
{
    struct fl_child *child;
    cds_list_for_each_entry(child, &keeper->children, link) fl_child_kill(child);
    cds_list_for_each_entry(child, &keeper->children, link)
    {
        struct pollfd ended = {.fd = child->pidfd, .events = POLLIN};
        poll(&ended, 1, BARRIER_MS);
        fl_keeper_receive(keeper, child);
    }
}

// What the keeper alone has is lost if it leaves, unless an engine that serves has it too.
static bool can_leave(const struct fl_keeper *keeper)
{
    return keeper->records.store || (keeper->serving && keeper->serving->phase == FL_CHILD_SERVING);
}

// Everything stays as it is, for the keeper that comes next: in the service manager's store, or
// with the engine, which goes on alone.
static void leave_vms(struct fl_keeper *keeper)
{
    keeper->leaving = !can_leave(keeper);
    if (keeper->leaving)
        return;
    if (keeper->records.store)
        end_engines(keeper);
    if (!fl_records_store_again(&keeper->records)) {
        fl_log(
            FL_LOG_ERROR,
            "event=leave_refused reason=\"the service manager refuses descriptors that VMs need\"");
        return;
    }
    int error = keeper->records.store ? fl_sm_barrier(BARRIER_MS) : 0;
    if (error)
        fl_log(FL_LOG_WARNING, "event=leave reason=\"the service manager does not answer: %s\"",
               strerror(-error));
    fl_log(FL_LOG_INFO, "event=leaving vms=%" PRIu64 " store=%s", keeper->records.vms,
           keeper->records.store ? "yes" : "no");
    keeper->done = true;
}

static void on_signal(struct fl_keeper *keeper)
{
    struct signalfd_siginfo info;
    while (read(keeper->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGUSR1)
            leave_vms(keeper);
        else
            stop_serving(keeper);
    }
}

static int watch_signals(struct fl_keeper *keeper)
{
    sigset_t set;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fl_signals_ignore();
    keeper->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (keeper->signal_fd < 0 ||
        epoll_ctl(keeper->epoll_fd, EPOLL_CTL_ADD, keeper->signal_fd, &event) != 0)
        return -errno;
    return 0;
}

// --- the loop ---

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_due(const struct fl_keeper *keeper)
{
    uint64_t due = least(keeper->look_ns, keeper->watchdog_ns);
    if (!keeper->standby && !keeper->stopping)
        due = least(due, keeper->start_after_ns);
    return least(due, fl_keeper_upgrade_next_due(keeper));
}

// What time brings. Not while there is something to read: a keeper that was stopped for a while
// would else blame the engine for its own absence.
static void run_due(struct fl_keeper *keeper)
{
    uint64_t now = fl_now();
    if (now >= keeper->look_ns)
        fl_keeper_look(keeper, now);
    fl_keeper_upgrade_due(keeper, now);
    if (now >= keeper->watchdog_ns) {
        fl_sm_notify("WATCHDOG=1");
        keeper->watchdog_ns = now + fl_sm_watchdog_ms() * FL_NS_PER_MS;
    }
    bool needed = !keeper->stopping || !keeper->serving;
    if (!keeper->standby && needed && !keeper->done && now >= keeper->start_after_ns)
        fl_keeper_start_standby(keeper);
}

// All descriptors of a child lead here: whichever was ready, all are looked at.
static void on_child(struct fl_keeper *keeper, struct fl_child *child)
{
    fl_keeper_receive(keeper, child);
    if (keeper->replaced) // what becomes of it is the other keeper's to see
        return;
    if (child->phase == FL_CHILD_TAKING_OVER)
        fl_keeper_go_on_sending(keeper, child);
    fl_keeper_child_over(keeper, child);
    fl_keeper_child_ended(keeper, child); // may free it
    fl_keeper_free_held(keeper);
}

static bool is_child(const struct fl_keeper *keeper, const void *pointer)
{
    struct fl_child *child;
    cds_list_for_each_entry(child, &keeper->children, link)
    {
        if (child == pointer)
            return true;
    }
    return false;
}

static void run_loop(struct fl_keeper *keeper)
{
    while (!keeper->done) {
        struct epoll_event event[EVENTS];
        struct timespec left = fl_until(fl_now(), next_due(keeper));
        int count = epoll_pwait2(keeper->epoll_fd, event, EVENTS, &left, NULL);
        // After leave() no end of an engine is a death: the keeper has ended them itself.
        for (int i = 0; i < count && !keeper->done; i++) {
            if (!event[i].data.ptr)
                on_signal(keeper);
            else if (is_child(keeper, event[i].data.ptr)) // an earlier event may have freed it
                on_child(keeper, event[i].data.ptr);
        }
        if (keeper->leaving)
            leave_vms(keeper);
        if (count < EVENTS && !keeper->done)
            run_due(keeper);
    }
}

// --- start and end ---

// Once, however often this process runs the program anew for an upgrade: filters add up. The
// variable is of the program before, and so as much to be trusted as the filter.
static void filter_calls(const struct fl_keeper *keeper)
{
    static const char name[] = "FAULTLINE_KEEPER_FILTER";
    const char *before = getenv(name);
    bool has = before && strcmp(before, FAULTLINE_VERSION) == 0 && prctl(PR_GET_SECCOMP) > 0;
    int error = has ? 0 : fl_call_filter_install(FL_CALL_FILTER_KEEPER, &keeper->options->filter);
    if (error)
        fl_log(FL_LOG_ERROR, "event=filter_failed reason=\"system calls are not filtered: %s\"",
               strerror(-error));
    else if (keeper->options->filter.mode != FL_CALL_FILTER_OFF)
        setenv(name, FAULTLINE_VERSION, 1);
}

static int find_executable(struct fl_keeper *keeper)
{
    static const char gone[] = " (deleted)"; // what the kernel appends if it was replaced
    ssize_t length = readlink("/proc/self/exe", keeper->path, sizeof(keeper->path) - 1);
    keeper->executable = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (length < 0 || keeper->executable < 0)
        return -errno;
    keeper->path[length] = '\0';
    char *end = keeper->path + length - (sizeof(gone) - 1);
    if (end > keeper->path && strcmp(end, gone) == 0)
        *end = '\0';
    return 0;
}

static int start_keeper(struct fl_keeper *keeper)
{
    fl_descriptors_raise();
    fl_settings_prepare();
    keeper->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (keeper->epoll_fd < 0)
        return -errno;
    filter_calls(keeper);
    int error = find_executable(keeper);
    return error ? error : watch_signals(keeper);
}

static void end_keeper(struct fl_keeper *keeper)
{
    struct fl_child *child;
    struct fl_child *next;
    // The one that serves goes on alone when we leave; the others have nothing to do.
    cds_list_for_each_entry_safe(child, next, &keeper->children, link)
    {
        if (child != keeper->serving)
            fl_child_kill(child);
        cds_list_del(&child->link);
        fl_child_free(child);
    }
    bool goes_on = keeper->serving || keeper->replaced || keeper->records.store;
    fl_sockets_lock_close(&keeper->sockets_lock, !goes_on);
    // A service manager that keeps all for the next start is not to keep files over a stop.
    bool stopped = keeper->stopping && !keeper->serving && !keeper->replaced;
    if (!goes_on || (stopped && keeper->records.vms == 0))
        fl_keeper_unmount_files(keeper);
    fl_records_free(&keeper->records);
    if (keeper->upgrade.executable >= 0)
        close(keeper->upgrade.executable);
    if (keeper->upgrade.settings >= 0)
        close(keeper->upgrade.settings);
    fl_settings_close(&keeper->settings);
    fl_keeper_unreserve(keeper);
    close(keeper->executable);
    close(keeper->signal_fd);
    close(keeper->epoll_fd);
}

// No VM may suffer from it: a keeper that has VMs goes on.
static int claim_sockets(struct fl_keeper *keeper)
{
    char other[PATH_MAX];
    const struct fl_keeper_options *options = keeper->options;
    int error =
        fl_sockets_lock_take(&keeper->sockets_lock, options->sockets, options->control, other);
    if (error && !keeper->serving && keeper->records.vms == 0) {
        fprintf(stderr,
                "faultline serve: another server, whose control socket is %s, has the directory of "
                "sockets %s: give each server a directory of its own (--sockets)\n",
                other, options->sockets);
        return error;
    }
    if (error)
        fl_log(FL_LOG_WARNING,
               "event=sockets_lock reason=\"another server has the directory of sockets\"");
    return 0;
}

// Returns an exit status.
static int keep(struct fl_keeper *keeper)
{
    const char *control = keeper->options->control;
    int error = fl_keeper_inherit(keeper);
    bool claimed = !error && claim_sockets(keeper) == 0;
    unsigned used = fl_descriptors_used();
    keeper->at_start =
        used > keeper->records.descriptors ? used - (unsigned)keeper->records.descriptors : 0;
    if (error == -EBUSY)
        fprintf(stderr, "faultline serve: another server listens at %s%s\n", control,
                keeper->options->replace ? ", and its version cannot be replaced: upgrade it first"
                                         : "");
    else if (error)
        fprintf(stderr,
                "faultline serve: the engine at %s is serving, and cannot be taken over: %s\n",
                control, strerror(-error));
    if (!claimed) // the file of --ready-file, if there is one, is another server's
        return 1;
    if (fl_keeper_mount_files(keeper) != 0)
        return 1;
    // One that was killed has left its file; one that was this process before an exec serves.
    fl_keeper_set_ready(keeper, keeper->serving && keeper->serving->born);
    run_loop(keeper);
    fl_keeper_set_ready(keeper, false);
    return keeper->exit_status;
}

int fl_keeper_run(const struct fl_keeper_options *options)
{
    // Some 64 KiB of list heads.
    static struct fl_keeper keeper;
    keeper = (struct fl_keeper){.options = options,
                                .settings = options->settings,
                                .upgrade.executable = -1,
                                .sockets_lock.fd = -1,
                                .upgrade.settings = -1,
                                .watchdog_ns = fl_sm_watchdog_ms() ? 0 : FL_NEVER};
    fl_title_set("keeper");
    CDS_INIT_LIST_HEAD(&keeper.children);
    fl_records_init(&keeper.records, fl_sm_keeps());
    int error = start_keeper(&keeper);
    if (error) {
        fprintf(stderr, "faultline serve: the keeper cannot start: %s\n", strerror(-error));
        return 1;
    }
    fl_log_set_level(options->log_level);
    fl_log_start("keeper");
    int status = keep(&keeper);
    end_keeper(&keeper);
    fl_log_stop();
    if (keeper.replaced)
        fl_keeper_wait_for_end();
    return status;
}
