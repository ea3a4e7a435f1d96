// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. An engine is one loop of the control thread: an event at a time, then the
// mail of workers and readers, then whatever is due. Its state (service_state.h) is moved by
// orders: of the keeper (serve, stop, yield, through upcalls.c), of SIGTERM, and of the control API
// (drain.h).
//
// With a keeper it starts as a standby, takes what it is sent, and opens its doors when it is told
// to serve; without one it opens them at once. When the keeper is gone it goes on alone. Nothing
// acts on that loss where it is found, which may be in the middle of a take-over: act_on_loss()
// does, once a round. The loop ends when the server is to end and has neither VM nor connection.
#include "engine/server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/accept.h"
#include "engine/accept/captures.h"
#include "engine/accept/connections.h"
#include "engine/accept/drain.h"
#include "engine/accept/listen.h"
#include "engine/base/call_filter.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/descriptors.h"
#include "engine/base/log.h"
#include "engine/base/title.h"
#include "engine/control/control.h"
#include "engine/control/totals.h"
#include "engine/files/files.h"
#include "engine/link/keeper_link.h"
#include "engine/server/server_internal.h"
#include "engine/takeover/heartbeat.h"
#include "engine/worker/lane.h"
#include "engine/worker/limit_watch.h"
#include "engine/worker/release.h"
#include "engine/worker/worker.h"

#define RELEASE_EVERY (500 * FL_NS_PER_MS)
#define LONELY (10 * FL_NS_PER_S)
#define FILES_EVERY (50 * FL_NS_PER_MS)

// --- draining and stopping ---

// Asked again, the shorter time counts. A keeper that is asked again sends 0.
void fl_server_stop(struct fl_server *server, uint64_t timeout_ms)
{
    uint64_t kill_ns = fl_now() + timeout_ms * FL_NS_PER_MS;
    if (kill_ns < server->stop.kill_ns)
        server->stop.kill_ns = kill_ns;
    if (fl_service_ends(server->acceptor.state))
        return;
    fl_log(FL_LOG_INFO, "event=stopping vms=%u", server->engine->vms.count);
    fl_files_refuse(server->engine->files);
    fl_drain(&server->acceptor, fl_service_has_begun(server->acceptor.state)
                                    ? FL_SERVICE_STOPPING
                                    : FL_SERVICE_CANCELLED);
}

static void go_on_releasing(struct fl_server *server, uint64_t now)
{
    struct fl_engine *engine = server->engine;
    if (now < server->stop.again_ns && !(now >= server->stop.kill_ns && !server->stop.killing))
        return;
    server->stop.again_ns = now + RELEASE_EVERY;
    server->stop.killing = now >= server->stop.kill_ns;
    if (server->stop.killing)
        fl_kill_all(engine, "the engine ends and its memory could not be completed in time");
    else
        fl_release_all(engine);
}

static void on_signal(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_server *server = caa_container_of(source, struct fl_server, signals);
    struct signalfd_siginfo info;
    while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        // A second signal means that there is no more patience. The keeper's order beside a signal
        // does not: both come where a whole group of processes is told to end.
        fl_server_stop(server,
                       server->stop.signalled ? 0 : server->engine->options.stop_timeout_ms);
        server->stop.signalled = true;
    }
}

// --- with a keeper ---

// No thread of ours touches a VM any more. All that we have the keeper has, too.
void fl_server_yield(struct fl_server *server)
{
    struct fl_engine *engine = server->engine;
    fl_captures_leave(engine->captures);
    fl_rcu_offline();
    fl_limit_watch_stop(engine->limits);
    fl_lanes_end_watch(engine->lanes);
    fl_files_stop(engine->files);
    fl_workers_halt(engine, true);
    FL_CRASH_POINT("halted");
    fl_keeper_link_yielded(engine->keeper_link);
    fl_log(FL_LOG_INFO, "event=yielded pid=%d vms=%u", (int)getpid(), engine->vms.count);
    fl_log_stop();
    _exit(0);
}

// An engine that has no keeper, and that no VM needs, must not stay for ever.
static uint64_t when_lonely(struct fl_server *server, uint64_t now)
{
    bool lonely = server->options->channel >= 0 && fl_service_has_begun(server->acceptor.state) &&
                  !fl_keeper_link_any(server->engine->keeper_link) &&
                  server->engine->vms.count == 0 && server->acceptor.connection_count == 0 &&
                  fl_files_open(server->engine->files) == 0;
    if (!lonely)
        server->lonely_ns = FL_NEVER;
    else if (server->lonely_ns == FL_NEVER)
        server->lonely_ns = now + LONELY;
    return server->lonely_ns;
}

// --- the loop ---

// fl_mailbox_awake() reads the eventfd; the loop drains.
static void on_mail(struct fl_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

// A file that is mapped cannot be completed: it is served as long as a VM may take to be.
static bool files_are_needed(const struct fl_server *server)
{
    return fl_files_open(server->engine->files) > 0 && fl_now() < server->stop.kill_ns;
}

static uint64_t next_due(struct fl_server *server)
{
    uint64_t due = fl_connections_next_due(&server->acceptor);
    uint64_t control = fl_control_next_due(server->control);
    due = control < due ? control : due;
    uint64_t heartbeat = fl_heartbeat_next_due(server->heartbeat);
    due = heartbeat < due ? heartbeat : due;
    if (server->acceptor.accept_again_ns && server->acceptor.accept_again_ns < due)
        due = server->acceptor.accept_again_ns;
    if (fl_service_releases(server->acceptor.state) && server->engine->vms.count > 0 &&
        server->stop.again_ns < due)
        due = server->stop.again_ns;
    uint64_t now = fl_now();
    uint64_t memory =
        fl_host_memory_next_due(&server->engine->memory, fl_engine_replays(server->engine), now);
    due = memory < due ? memory : due;
    uint64_t upkeep = fl_upkeep_next_due(server);
    due = upkeep < due ? upkeep : due;
    if (fl_service_ends(server->acceptor.state) && files_are_needed(server)) {
        uint64_t look = now + FILES_EVERY;
        due = look < due ? look : due;
    }
    uint64_t lonely = when_lonely(server, now);
    return lonely < due ? lonely : due;
}

static void wait_and_dispatch(struct fl_server *server)
{
    uint32_t events = 0;
    uint64_t due = next_due(server);
    struct timespec left = fl_until(fl_now(), due);
    bool block = fl_mailbox_sleep(&server->engine->control);
    if (!block)
        left = (struct timespec){0};
    fl_rcu_offline();
    struct fl_source *source =
        fl_loop_wait(&server->loop, block && due == FL_NEVER ? NULL : &left, &events);
    fl_rcu_online();
    if (block)
        fl_mailbox_awake(&server->engine->control);
    if (source)
        source->ready(source, events);
}

static bool server_has_ended(const struct fl_server *server)
{
    return server->failed ||
           (fl_service_ends(server->acceptor.state) && server->engine->vms.count == 0 &&
            server->acceptor.connection_count == 0 && !files_are_needed(server));
}

static int begin_to_serve(struct fl_server *server, bool first)
{
    fl_takeover_complete(&server->takeover);
    if (!fl_drain_begin(&server->acceptor, server->takeover.mode))
        return 0;
    fl_title_set("engine");
    fl_engine_serves(server->engine);
    fl_log_set_process("engine");
    fl_files_serve(server->engine->files);
    return fl_server_open_doors(server, first, server->error);
}

// No VM and no client depends on a store that was never served.
static bool is_first(struct fl_server *server, uint64_t generation)
{
    return generation <= 1 && server->engine->vms.count == 0 &&
           fl_files_open(server->engine->files) == 0 && server->acceptor.connection_count == 0 &&
           cds_list_empty(&server->acceptor.listeners);
}

// VMs are served by now. Those that came from an engine that had no ledger were counted nowhere.
static void go_on_counting(struct fl_server *server)
{
    if (!fl_inherited_counters_carry(&server->takeover.counters))
        server->engine->counts->attached += server->engine->vms.count;
    fl_totals_go_on(server->engine);
}

void fl_server_serve(struct fl_server *server, uint64_t generation)
{
    fl_inherited_counters_keep(&server->takeover.counters, false);
    server->engine->generation = generation;
    if (begin_to_serve(server, is_first(server, generation)) != 0) {
        server->failed = true;
        return;
    }
    fl_listeners_resume(&server->acceptor); // those of a predecessor
    fl_log(FL_LOG_INFO, "event=ready pid=%d workers=%u generation=%" PRIu64, (int)getpid(),
           server->engine->worker_count, generation);
    FL_CRASH_POINT("doors_open");
    fl_keeper_link_serving(server->engine->keeper_link, server->engine->vms.count);
    go_on_counting(server);
}

// A standby is of no use without a keeper; but one that has been sent VMs is all that they have.
static void go_on_alone(struct fl_server *server)
{
    if (server->engine->vms.count == 0 && server->acceptor.connection_count == 0 &&
        fl_files_open(server->engine->files) == 0) {
        fl_drain_end(&server->acceptor);
        return;
    }
    if (begin_to_serve(server, false) != 0)
        fl_log(FL_LOG_ERROR, "event=open_failed reason=\"%s\"", server->error->text);
    fl_listeners_resume(&server->acceptor);
    go_on_counting(server);
    fl_log(FL_LOG_INFO, "event=ready pid=%d workers=%u", (int)getpid(),
           server->engine->worker_count);
}

// Not in the middle of what has found that the keeper is gone: that may be the taking over of
// something, or the beginning to serve, which the keeper may have asked for with its last word.
static void act_on_loss(struct fl_server *server)
{
    if (!server->keeper_lost)
        return;
    server->keeper_lost = false;
    if (!fl_service_has_begun(server->acceptor.state))
        go_on_alone(server);
    if (fl_service_has_begun(server->acceptor.state))
        fl_log(
            FL_LOG_ERROR,
            "event=keeper_lost vms=%u reason=\"the keeper is gone: start 'faultline serve' again\"",
            server->engine->vms.count);
}

static void run_loop(struct fl_server *server)
{
    act_on_loss(server);
    while (!server_has_ended(server)) {
        wait_and_dispatch(server);
        fl_mailbox_drain(&server->engine->control, server->engine);
        uint64_t now = fl_now();
        fl_control_run(server->control, now);
        fl_connections_expire(&server->acceptor, now);
        fl_heartbeat_run(server->heartbeat, now);
        fl_upkeep_run(server, now);
        fl_host_memory_run(&server->engine->memory, fl_engine_replays(server->engine), now);
        if (server->acceptor.accept_again_ns && server->acceptor.accept_again_ns <= now)
            fl_listeners_resume(&server->acceptor);
        if (fl_service_releases(server->acceptor.state) && server->engine->vms.count > 0)
            go_on_releasing(server, now);
        if (when_lonely(server, now) <= now) {
            fl_log(FL_LOG_INFO, "event=ending reason=\"there is neither a keeper nor a VM\"");
            fl_drain_end(&server->acceptor);
        }
        fl_keeper_link_run(server->engine->keeper_link);
        fl_call_filter_tell();
        act_on_loss(server);
        fl_rcu_quiescent();
    }
}

void fl_server_keeper_lost(struct fl_server *server, bool outside)
{
    // Going on alone, until the service manager kills us too, we would take VMs that no keeper has.
    if (outside) {
        fl_log(FL_LOG_ERROR,
               "event=keeper_lost vms=%u reason=\"the keeper is gone; the service manager has what "
               "the VMs need\"",
               server->engine->vms.count);
        fl_log_stop();
        _exit(1);
    }
    server->keeper_lost = true;
}

// --- all of it ---

// Before the first word of a keeper or of a client is read, and when all is made that is made only
// once: threads, which get the filter too, and the ring of io_uring, which may only read.
static void filter_calls(struct fl_server *server)
{
    struct fl_call_filter_options filter = server->options->filter;
    struct fl_degraded *degraded = &server->engine->degraded;
    filter.internet = fl_control_is_on_internet(server->control);
    int error = fl_call_filter_install(FL_CALL_FILTER_ENGINE, &filter);
    if (error)
        fl_lacks(degraded, FL_LACK_FILTER, "system calls are not filtered: %s", strerror(-error));
    else if (filter.mode == FL_CALL_FILTER_LOG)
        fl_lacks(degraded, FL_LACK_FILTER, "system calls are not filtered, but logged: --seccomp");
}

// Without a keeper.
static void begin_alone(struct fl_server *server)
{
    fl_drain_begin(&server->acceptor, 0);
    fl_engine_serves(server->engine);
    if (server->options->store)
        server->failed = fl_server_open_doors(server, true, server->error) != 0;
    fl_listeners_resume(&server->acceptor);
    if (!server->failed)
        fl_log(FL_LOG_INFO, "event=ready pid=%d workers=%u", (int)getpid(),
               server->engine->worker_count);
}

// VMs were to be completed and let go. What became of those that were not.
static int check_complete(const struct fl_server *server, struct fl_error *ret_error)
{
    const struct fl_ends *before = &server->acceptor.ends_before;
    const struct fl_ends *ends = &server->engine->counts->ends;
    uint64_t poisoned = ends->poisoned - before->poisoned;
    uint64_t killed = ends->killed - before->killed;
    if (poisoned == 0 && killed == 0)
        return 0;
    return fl_fail_plain(ret_error, FL_SERVER_INCOMPLETE,
                         "not every VM was completed: %" PRIu64 " let go with %" PRIu64
                         " pages poisoned, %" PRIu64 " killed; the log says why",
                         poisoned, ends->poisoned_pages - before->poisoned_pages, killed);
}

static void init_acceptor(struct fl_server *server)
{
    const struct fl_server_options *options = server->options;
    server->acceptor = (struct fl_acceptor){.loop = &server->loop,
                                            .sockets = &server->sockets,
                                            .store = options->store,
                                            .directory = options->sockets,
                                            .access = options->access};
    CDS_INIT_LIST_HEAD(&server->acceptor.listeners);
    CDS_INIT_LIST_HEAD(&server->acceptor.connections);
}

int fl_server_run(const struct fl_server_options *options, struct fl_error *ret_error)
{
    struct fl_server server = {.options = options,
                               .loop = {-1},
                               .signals = {.fd = -1, .ready = on_signal},
                               .mail = {.fd = -1, .ready = on_mail},
                               .stop.kill_ns = FL_NEVER,
                               .lonely_ns = FL_NEVER,
                               .error = ret_error};
    fl_title_set(options->channel < 0 ? "handler" : "standby");
    fl_inherited_sockets_init(&server.sockets);
    init_acceptor(&server);
    int result = 0;
    fl_descriptors_raise();
    fl_descriptors_grow(); // before the log's thread begins
    fl_log_set_level(options->log_level);
    fl_log_start(options->channel < 0 ? "engine" : "standby");
    int error = fl_server_start(&server, ret_error);
    if (!error)
        filter_calls(&server);
    // A standby begins to serve when the keeper says so.
    if (!error && options->channel < 0)
        begin_alone(&server);
    if (!error)
        run_loop(&server);
    if (!error && !server.failed && fl_service_has_begun(server.acceptor.state)) {
        fl_keeper_link_ended(server.engine->keeper_link);
        fl_log(FL_LOG_INFO, "event=stopped");
        result = check_complete(&server, ret_error);
    }
    fl_server_end(&server);
    fl_log_stop();
    return server.failed ? -EIO : error ? error : result;
}
