// SPDX-License-Identifier: Apache-2.0
//
// What a server is made of: put together at its start, taken apart at its end.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "engine/accept/accept.h"
#include "engine/accept/attach.h"
#include "engine/accept/captures.h"
#include "engine/accept/listen.h"
#include "engine/accept/listener.h"
#include "engine/accept/refuse.h"
#include "engine/accept/room.h"
#include "engine/accept/store_watch.h"
#include "engine/base/clock.h"
#include "engine/base/descriptors.h"
#include "engine/base/signals.h"
#include "engine/control/control.h"
#include "engine/control/totals.h"
#include "engine/files/files.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "engine/image/store_space.h"
#include "engine/link/keeper_link.h"
#include "engine/server/server.h"
#include "engine/server/server_internal.h"
#include "engine/takeover/heartbeat.h"
#include "engine/takeover/keeper_socket.h"
#include "engine/template/templates.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

static int watch_signals(struct fl_server *server)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (server->options->channel < 0) {
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP); // a terminal that closes must not leave VMs behind
    } else {
        // The keeper's, and not to be had from the kernel: an engine that is stopped when its
        // keeper dies is of an orphaned process group, and gets SIGHUP.
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        signal(SIGTSTP, SIG_IGN);
    }
    signal(SIGUSR1, SIG_IGN); // the keeper's alone
    fl_signals_ignore();
    // Blocked before the first thread is made, so that all threads inherit it.
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    server->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server->signals.fd < 0)
        return -errno;
    return fl_loop_watch(&server->loop, &server->signals, EPOLLIN);
}

// There is a socket for it, as there is for each image of the store.
static bool image_is_served(void *arg, const char *image)
{
    const struct fl_acceptor *acceptor = arg;
    const struct fl_listener *listener;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (strcmp(listener->image, image) == 0)
            return true;
    }
    return false;
}

// The store itself is not looked at before a VM may depend on it: a standby must not wait for
// storage that hangs.
static int start_store(struct fl_server *server, struct fl_error *ret_error)
{
    const struct fl_server_options *options = server->options;
    server->heartbeat = fl_heartbeat_new(server->engine);
    int error =
        server->heartbeat ? fl_store_place_new(options->store, &server->acceptor.place) : -ENOMEM;
    server->engine->space = fl_store_space_new(options->store); // or its size is not known
    server->engine->image_counting.exists = image_is_served;
    server->engine->image_counting.arg = &server->acceptor;
    if (!error)
        error = fl_server_start_keeper_link(server);
    server->sockets.keeper_link = server->engine->keeper_link;
    server->engine->degraded.keeper_link = server->engine->keeper_link;
    if (!error && fl_ledger_fd(server->ledger) < 0)
        fl_lacks(&server->engine->degraded, FL_LACK_COUNTERS,
                 "counters will begin with zeros if the engine dies: %s",
                 strerror(-fl_ledger_fd(server->ledger)));
    if (!error)
        error = fl_images_new(server->acceptor.place, server->engine->keeper_link,
                              &server->engine->images);
    if (!error)
        error = fl_server_start_templates(server);
    if (!error) {
        server->engine->captures = fl_captures_new(&server->acceptor);
        error = server->engine->captures ? 0 : -ENOMEM;
    }
    if (!error)
        error = fl_server_start_files(server);
    if (!error)
        error = fl_server_start_control(server);
    return error ? fl_fail_plain(ret_error, error, "%s", strerror(-error)) : 0;
}

static int watch_store(struct fl_server *server, bool first, struct fl_error *ret_error)
{
    int error = fl_store_watch_start(&server->acceptor, first, &server->watch);
    if (error == FL_NO_STORE_NOW)
        fl_store_place_why(server->acceptor.place, ret_error);
    else if (error)
        fl_fail(ret_error, error, "the store %s cannot be followed", server->options->store);
    return error;
}

// With all that the engine needs for itself, and before the sockets of images, which share what is
// left: a server that could take no VM would say that it waits for others to end.
static int check_room(struct fl_server *server, struct fl_error *ret_error)
{
    if (fl_room_for_vms(&server->acceptor, 1) && fl_room_to_listen(&server->acceptor))
        return 0;
    return fl_fail_plain(ret_error, -EMFILE,
                         "the limit of open files, %u, leaves no room for a single VM",
                         fl_descriptors_limit());
}

// A successor serves what it has whatever it lacks: it looks for the rest at once, and again.
int fl_server_open_doors(struct fl_server *server, bool first, struct fl_error *ret_error)
{
    int error = 0;
    for (int door = 0; first && !error && door < FL_DOORS; door++)
        error = fl_control_look(server->control, (enum fl_door_kind)door, ret_error);
    if (first && !error)
        error = fl_keeper_socket_start(&server->takeover, server->options->control,
                                       &server->keeper_socket, ret_error);
    if (first && !error)
        error = check_room(server, ret_error);
    if (error)
        return error;
    fl_templates_serve(server->engine->templates);
    error = watch_store(server, first, ret_error);
    if (error && first)
        return error;
    fl_upkeep_run(server, fl_now());
    return 0;
}

static int start_raw(struct fl_server *server, struct fl_error *ret_error)
{
    const struct fl_server_options *options = server->options;
    const char *why = NULL;
    int error = fl_image_open_raw(options->raw_file, &server->acceptor.raw);
    if (error == -EINVAL)
        fl_fail_plain(ret_error, error, "the memory file %s is not a regular file",
                      options->raw_file);
    else if (error == -ENODATA)
        fl_fail_plain(ret_error, error, "the memory file %s is empty", options->raw_file);
    else if (error)
        fl_fail(ret_error, error, "the memory file %s cannot be opened", options->raw_file);
    if (error)
        return error;
    server->engine->raw_file = options->raw_file;
    error =
        fl_listener_add(&server->acceptor, fl_image_name(server->acceptor.raw), options->raw_socket,
                        &options->access, &(struct fl_choices){0}, false, &why);
    return error ? fl_fail_plain(ret_error, error, "the server cannot listen at %s: %s",
                                 options->raw_socket, why)
                 : 0;
}

static const struct fl_engine_ops engine_ops = {
    .dispose = fl_vm_dispose,
    .refuse_child = fl_refuse_child,
};

int fl_server_start(struct fl_server *server, struct fl_error *ret_error)
{
    int error = fl_loop_open(&server->loop);
    if (!error)
        error = watch_signals(server);
    if (!error)
        error = fl_totals_new_ledger(&server->ledger);
    if (!error)
        error =
            fl_engine_start(&server->options->engine, &engine_ops, server->ledger, &server->engine);
    if (error == -EMFILE)
        return fl_fail_plain(ret_error, error,
                             "the engine cannot start: the limit of open files, %u, is too low",
                             fl_descriptors_limit());
    if (error)
        return fl_fail(ret_error, error, "the engine cannot start");
    server->acceptor.engine = server->engine;
    fl_takeover_init(&server->takeover, &server->acceptor);
    server->mail.fd = server->engine->control.event_fd;
    error = fl_loop_watch(&server->loop, &server->mail, EPOLLIN);
    if (error)
        return fl_fail(ret_error, error, "the engine cannot start");
    return server->options->store ? start_store(server, ret_error) : start_raw(server, ret_error);
}

void fl_server_end(struct fl_server *server)
{
    fl_listeners_close(&server->acceptor);
    fl_control_free(server->control);
    server->control = NULL;
    fl_keeper_socket_stop(server->keeper_socket);
    if (server->engine) {
        struct fl_images *images = server->engine->images;
        struct fl_keeper_link *keeper_link = server->engine->keeper_link;
        struct fl_templates *templates = server->engine->templates;
        struct fl_captures *captures = server->engine->captures;
        struct fl_files *files = server->engine->files;
        struct fl_store_space *space = server->engine->space;
        fl_takeover_stop(&server->takeover);
        fl_templates_stop(templates);
        fl_files_stop(files);
        fl_engine_stop(server->engine);
        fl_files_free(files);
        fl_captures_free(captures);
        fl_templates_free(templates);
        fl_heartbeat_free(server->heartbeat);
        fl_store_space_free(space);
        fl_images_free(images);
        fl_keeper_link_stop(keeper_link);
    }
    fl_ledger_free(server->ledger);
    // Only now is no reader at it; its mail is read no more.
    fl_store_watch_stop(server->watch);
    fl_image_unref(server->acceptor.raw);
    fl_store_place_free(server->acceptor.place);
    if (server->signals.fd >= 0)
        close(server->signals.fd);
    fl_loop_close(&server->loop);
}
