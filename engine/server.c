// SPDX-License-Identifier: Apache-2.0
#include "engine/server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/clock.h"
#include "engine/connection.h"
#include "engine/control.h"
#include "engine/follow.h"
#include "engine/images.h"
#include "engine/incoming.h"
#include "engine/keeper_socket.h"
#include "engine/kept.h"
#include "engine/listen.h"
#include "engine/log.h"
#include "engine/point.h"
#include "engine/release.h"
#include "engine/templates.h"
#include "engine/worker.h"
#include "snapshot/read.h"

#define RELEASE_EVERY (500 * FL_NS_PER_MS)

// The end: VMs are filled and let go; those that this takes too long for are killed.
struct stop {
    uint64_t kill_ns;  // FL_NEVER until asked to stop
    uint64_t again_ns; // orders are repeated: a VM may have been on its way to a worker
    bool killing;
};

struct run {
    struct fl_server server;
    struct fl_source signals;
    struct fl_source mail;
    struct fl_follow *follow;
    struct stop stop;
    uint64_t lonely_ns; // with neither keeper nor VM: when to end; FL_NEVER
    bool failed;        // could not begin to serve
    char *reason;       // why it cannot start
    size_t reason_size;
};

#define LONELY (10 * FL_NS_PER_S)

int fl_server_watch(struct fl_server *server, struct fl_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void fl_server_unwatch(struct fl_server *server, struct fl_source *source)
{
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

// --- draining and stopping ---

void fl_server_drain(struct fl_server *server, bool release)
{
    if (!server->refusing || (release && !server->releasing))
        fl_log(FL_LOG_INFO, "event=draining vms=%u release=%s", server->engine->vm_count,
               release ? "yes" : "no");
    server->refusing = true;
    server->releasing = server->releasing || release;
    fl_server_keep_mode(server);
    fl_listeners_close(server);
}

static struct run *run_of(struct fl_server *server)
{
    return caa_container_of(server, struct run, server);
}

void fl_server_stop(struct fl_server *server, uint64_t timeout_ms)
{
    struct run *run = run_of(server);
    uint64_t now = fl_now();
    if (server->stopping) { // asked again: no more patience
        run->stop.kill_ns = now;
        return;
    }
    server->stopping = true;
    run->stop.kill_ns = now + timeout_ms * FL_NS_PER_MS;
    fl_log(FL_LOG_INFO, "event=stopping vms=%u", server->engine->vm_count);
    fl_server_drain(server, true);
}

static void go_on_releasing(struct run *run, uint64_t now)
{
    struct fl_engine *engine = run->server.engine;
    if (now < run->stop.again_ns && !(now >= run->stop.kill_ns && !run->stop.killing))
        return;
    run->stop.again_ns = now + RELEASE_EVERY;
    run->stop.killing = now >= run->stop.kill_ns;
    if (run->stop.killing)
        fl_kill_all(engine, "the engine ends and its memory could not be completed in time");
    else
        fl_release_all(engine);
}

static void on_signal(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct run *run = caa_container_of(source, struct run, signals);
    struct signalfd_siginfo info;
    while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        fl_server_stop(&run->server, run->server.engine->options.stop_timeout_ms);
}

// --- with a keeper ---

void fl_server_keep_mode(struct fl_server *server)
{
    uint64_t mode =
        (server->refusing ? FL_MODE_REFUSING : 0U) | (server->releasing ? FL_MODE_RELEASING : 0U);
    if (mode)
        fl_kept_put_mode(server->engine->kept, mode);
}

void fl_server_keep_sockets(struct fl_server *server)
{
    for (int id = FL_SOCKET_CONTROL; id <= FL_SOCKET_INOTIFY; id++) {
        if (server->inherited[id] >= 0)
            fl_kept_put_socket(server->engine->kept, (enum fl_kept_socket)id,
                               server->inherited[id]);
    }
}

int fl_server_listen(struct fl_server *server, enum fl_kept_socket id, const char *path, int type,
                     const struct fl_socket_access *access, struct fl_listening *ret_listening)
{
    struct stat status;
    // Again: whoever connects is told the pid of the process that was the last to do this.
    if (server->inherited[id] >= 0 && lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) &&
        listen(server->inherited[id], SOMAXCONN) == 0) {
        *ret_listening = (struct fl_listening){server->inherited[id], status.st_dev, status.st_ino};
        return 0;
    }
    int error = fl_socket_listen(path, type, access, ret_listening);
    if (error)
        return error;
    if (server->inherited[id] >= 0) // its file is gone: nobody can reach it
        close(server->inherited[id]);
    server->inherited[id] = ret_listening->fd;
    fl_kept_put_socket(server->engine->kept, id, ret_listening->fd);
    return 0;
}

// No thread of ours touches a VM any more. All that we have the keeper has, too.
void fl_server_yield(struct fl_server *server)
{
    struct fl_engine *engine = server->engine;
    fl_rcu_offline();
    for (unsigned i = 0; i < engine->worker_count; i++)
        fl_worker_halt(&engine->workers[i]);
    FL_POINT("halted");
    fl_kept_yielded(engine->kept);
    fl_log(FL_LOG_INFO, "event=yielded pid=%d vms=%u", (int)getpid(), engine->vm_count);
    _exit(0);
}

// An engine that nobody looks after, and that nobody needs, must not stay for ever.
static uint64_t when_lonely(struct run *run, uint64_t now)
{
    const struct fl_server *server = &run->server;
    bool lonely = server->options->channel >= 0 && server->serving &&
                  !fl_kept_any(server->engine->kept) && server->engine->vm_count == 0;
    if (!lonely)
        run->lonely_ns = FL_NEVER;
    else if (run->lonely_ns == FL_NEVER)
        run->lonely_ns = now + LONELY;
    return run->lonely_ns;
}

// --- the loop ---

// fl_mailbox_awake() reads the eventfd; the loop drains.
static void on_mail(struct fl_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

static uint64_t next_due(struct run *run)
{
    struct fl_server *server = &run->server;
    uint64_t due = fl_connections_next_due(server);
    uint64_t control = fl_control_next_due(server->control);
    due = control < due ? control : due;
    if (server->accept_again_ns && server->accept_again_ns < due)
        due = server->accept_again_ns;
    if (server->releasing && server->engine->vm_count > 0 && run->stop.again_ns < due)
        due = run->stop.again_ns;
    uint64_t now = fl_now();
    uint64_t memory =
        fl_host_memory_next_due(&server->engine->memory, fl_engine_replays(server->engine), now);
    due = memory < due ? memory : due;
    uint64_t lonely = when_lonely(run, now);
    return lonely < due ? lonely : due;
}

static void wait_and_dispatch(struct run *run)
{
    struct fl_server *server = &run->server;
    // One at a time: what one handler frees cannot be in the next event.
    struct epoll_event event;
    uint64_t due = next_due(run);
    struct timespec left = fl_until(fl_now(), due);
    bool block = fl_mailbox_sleep(&server->engine->control);
    if (!block)
        left = (struct timespec){0};
    fl_rcu_offline();
    int count =
        epoll_pwait2(server->epoll_fd, &event, 1, block && due == FL_NEVER ? NULL : &left, NULL);
    fl_rcu_online();
    if (block)
        fl_mailbox_awake(&server->engine->control);
    if (count == 1) {
        struct fl_source *source = event.data.ptr;
        source->ready(source, event.events);
    }
}

static bool ended(const struct run *run)
{
    const struct fl_server *server = &run->server;
    return run->failed ||
           (server->stopping && server->engine->vm_count == 0 && server->connection_count == 0);
}

static void loop(struct run *run)
{
    struct fl_server *server = &run->server;
    while (!ended(run)) {
        wait_and_dispatch(run);
        fl_mailbox_drain(&server->engine->control, server->engine);
        uint64_t now = fl_now();
        fl_control_run(server->control);
        fl_connections_expire(server, now);
        fl_host_memory_run(&server->engine->memory, fl_engine_replays(server->engine), now);
        if (server->accept_again_ns && server->accept_again_ns <= now)
            fl_listeners_resume(server);
        if (server->releasing && server->engine->vm_count > 0)
            go_on_releasing(run, now);
        if (when_lonely(run, now) <= now) {
            fl_log(FL_LOG_INFO, "event=ending reason=\"there is neither a keeper nor a VM\"");
            server->stopping = true;
        }
        fl_kept_run(server->engine->kept);
        fl_rcu_quiescent();
    }
}

// --- start and end ---

static int watch_signals(struct run *run)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (run->server.options->channel < 0) {
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP); // a terminal that closes must not leave VMs behind
    } else {
        // The keeper's, and not to be had from the kernel: an engine that is stopped when its
        // keeper dies is of an orphaned process group, and gets SIGHUP.
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
    }
    // Blocked before the first thread is made, so that all threads inherit it.
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    run->signals = (struct fl_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                                      .ready = on_signal};
    if (run->signals.fd < 0)
        return -errno;
    return fl_server_watch(&run->server, &run->signals, EPOLLIN);
}

static const char *store_trouble(int error)
{
    return error == -EPROTONOSUPPORT ? "it is of a version that this program does not know"
           : error == -EBADMSG       ? "its marker faultline-store is damaged"
                                     : strerror(-error);
}

static int start_store(struct run *run, char *reason, size_t size)
{
    struct fl_server *server = &run->server;
    const struct fl_server_options *options = server->options;
    int error = fl_reader_open(options->store, &server->reader);
    if (error == -ENOENT)
        snprintf(reason, size, FL_NO_STORE, options->store);
    else if (error)
        snprintf(reason, size, "the store %s cannot be opened: %s", options->store,
                 store_trouble(error));
    if (error)
        return error;
    error = fl_kept_start(server, options->channel, &server->engine->kept);
    if (!error)
        error = fl_images_new(server->reader, server->engine->kept, &server->engine->images);
    if (!error)
        error =
            fl_templates_new(server, options->engine.template_bytes, &server->engine->templates);
    if (error)
        snprintf(reason, size, "%s", strerror(-error));
    return error;
}

// What a standby does not do yet: be found by others.
static int open_doors(struct run *run, char *reason, size_t size)
{
    struct fl_server *server = &run->server;
    const struct fl_server_options *options = server->options;
    int error = fl_control_start(server, options->control, &server->control, reason, size);
    if (!error)
        error =
            fl_keeper_socket_start(server, options->control, &server->keeper_socket, reason, size);
    if (error)
        return error;
    fl_templates_serve(server->engine->templates);
    error = fl_follow_start(server, &run->follow);
    if (error)
        snprintf(reason, size, "the store %s cannot be followed: %s", options->store,
                 strerror(-error));
    return error;
}

static int begin_to_serve(struct run *run)
{
    struct fl_server *server = &run->server;
    fl_incoming_end(server);
    server->serving = true;
    server->refusing = (server->mode & FL_MODE_REFUSING) != 0;
    server->releasing = (server->mode & FL_MODE_RELEASING) != 0;
    return open_doors(run, run->reason, run->reason_size);
}

void fl_server_serve(struct fl_server *server, uint64_t generation)
{
    struct run *run = run_of(server);
    if (begin_to_serve(run) != 0) {
        run->failed = true;
        return;
    }
    fl_listeners_resume(server); // those of a predecessor
    fl_log(FL_LOG_INFO, "event=ready pid=%d workers=%u generation=%" PRIu64, (int)getpid(),
           server->engine->worker_count, generation);
    FL_POINT("doors_open");
    fl_kept_serving(server->engine->kept);
}

// A standby is of no use to anybody; but one that has been sent VMs is all that they have.
static void go_on_alone(struct run *run)
{
    struct fl_server *server = &run->server;
    if (server->engine->vm_count == 0 && server->connection_count == 0) {
        server->stopping = true;
        return;
    }
    if (begin_to_serve(run) != 0) // nobody new will find us, that is all
        fl_log(FL_LOG_ERROR, "event=open_failed reason=\"%s\"", run->reason);
    fl_listeners_resume(server);
    fl_log(FL_LOG_INFO, "event=ready pid=%d workers=%u", (int)getpid(),
           server->engine->worker_count);
}

void fl_server_keeper_lost(struct fl_server *server, bool outside)
{
    // Going on alone, until the service manager kills us too, we would take VMs that nobody has.
    if (outside) {
        fl_log(FL_LOG_ERROR, "event=keeper_lost vms=%u reason=\"the service manager has them\"",
               server->engine->vm_count);
        _exit(1);
    }
    if (!server->serving)
        go_on_alone(run_of(server));
    if (server->serving)
        fl_log(FL_LOG_ERROR, "event=keeper_lost vms=%u reason=\"start 'faultline serve' again\"",
               server->engine->vm_count);
}

static int start_raw(struct run *run, char *reason, size_t size)
{
    struct fl_server *server = &run->server;
    const struct fl_server_options *options = server->options;
    const char *why = NULL;
    int error = fl_image_open_raw(options->raw_file, &server->raw);
    if (error == -EINVAL)
        snprintf(reason, size, "the memory file %s is not a regular file", options->raw_file);
    else if (error == -ENODATA)
        snprintf(reason, size, "the memory file %s is empty", options->raw_file);
    else if (error)
        snprintf(reason, size, "the memory file %s cannot be opened: %s", options->raw_file,
                 strerror(-error));
    if (error)
        return error;
    error = fl_listener_add(server, fl_image_name(server->raw), options->raw_socket,
                            &options->access, FL_POLICY_DEFAULT, false, &why);
    if (error)
        snprintf(reason, size, "it cannot listen at %s: %s", options->raw_socket, why);
    return error;
}

static int start(struct run *run, char *reason, size_t size)
{
    struct fl_server *server = &run->server;
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int error = server->epoll_fd < 0 ? -errno : watch_signals(run);
    if (!error)
        error = fl_engine_start(&server->options->engine, &server->engine);
    if (error) {
        snprintf(reason, size, "the engine cannot start: %s", strerror(-error));
        return error;
    }
    run->mail = (struct fl_source){.fd = server->engine->control.event_fd, .ready = on_mail};
    error = fl_server_watch(server, &run->mail, EPOLLIN);
    if (error) {
        snprintf(reason, size, "the engine cannot start: %s", strerror(-error));
        return error;
    }
    return server->options->store ? start_store(run, reason, size) : start_raw(run, reason, size);
}

static void end(struct run *run)
{
    struct fl_server *server = &run->server;
    fl_listeners_close(server);
    fl_control_stop(server->control);
    fl_keeper_socket_stop(server->keeper_socket);
    fl_follow_stop(run->follow);
    if (server->engine) {
        struct fl_images *images = server->engine->images;
        struct fl_kept *kept = server->engine->kept;
        struct fl_templates *templates = server->engine->templates;
        fl_templates_stop(templates);
        fl_engine_stop(server->engine);
        fl_templates_free(templates);
        free(server->pulse);
        fl_images_free(images);
        fl_kept_stop(kept);
    }
    fl_image_unref(server->raw);
    if (server->reader)
        fl_reader_close(server->reader);
    if (run->signals.fd >= 0)
        close(run->signals.fd);
    if (server->epoll_fd >= 0)
        close(server->epoll_fd);
}

// Without a keeper.
static void begin_alone(struct run *run)
{
    run->server.serving = true;
    if (run->server.options->store)
        run->failed = open_doors(run, run->reason, run->reason_size) != 0;
    fl_listeners_resume(&run->server);
    if (!run->failed)
        fl_log(FL_LOG_INFO, "event=ready pid=%d workers=%u", (int)getpid(),
               run->server.engine->worker_count);
}

int fl_server_run(const struct fl_server_options *options, char *ret_reason, size_t size)
{
    struct run run = {.server = {.options = options, .epoll_fd = -1, .inherited = {-1, -1, -1, -1}},
                      .signals.fd = -1,
                      .stop.kill_ns = FL_NEVER,
                      .lonely_ns = FL_NEVER,
                      .reason = ret_reason,
                      .reason_size = size};
    CDS_INIT_LIST_HEAD(&run.server.listeners);
    CDS_INIT_LIST_HEAD(&run.server.connections);
    CDS_INIT_LIST_HEAD(&run.server.incoming);
    int error = start(&run, ret_reason, size);
    // A standby begins to serve when the keeper says so.
    if (!error && options->channel < 0)
        begin_alone(&run);
    if (!error)
        loop(&run);
    if (!error && !run.failed && run.server.serving) {
        fl_kept_ended(run.server.engine->kept);
        fl_log(FL_LOG_INFO, "event=stopped");
    }
    end(&run);
    return run.failed ? -EIO : error;
}
