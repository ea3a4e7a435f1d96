// SPDX-License-Identifier: Apache-2.0
//
// The sockets at which images are had: one of its own for each image of the store, and those that
// were asked for. Control thread only.
#ifndef FAULTLINE_ACCEPT_LISTEN_H
#define FAULTLINE_ACCEPT_LISTEN_H

#include <stdbool.h>

#include "engine/accept/listener.h"
#include "engine/link/channel.h"

// True if the store has the image now.
bool fl_listener_image_exists(const struct fl_acceptor *acceptor, const char *image);
// The listener that the path leads to, however it is spelt, or that had it; NULL: none.
struct fl_listener *fl_listener_find(struct fl_acceptor *acceptor, const char *path);
// Ends one; a client that has connected already is still served.
void fl_listener_remove(struct fl_listener *listener);

// 0, or -errno with a constant sentence.
int fl_listener_add(struct fl_acceptor *acceptor, const char *image, const char *path,
                    const struct fl_socket_access *access, const struct fl_choices *choices,
                    bool automatic, const char **ret_reason);
// The same for VMs that map the image's template.
int fl_listener_add_template(struct fl_acceptor *acceptor, const char *image, const char *path,
                             const struct fl_socket_access *access, const char **ret_reason);
// A predecessor's: the socket and its description.
void fl_listener_adopt(struct fl_acceptor *acceptor, uint64_t id, int fds[FL_CHANNEL_FDS]);
// Has a new keeper hold them all.
void fl_listeners_keep(struct fl_acceptor *acceptor);
void fl_listeners_close(struct fl_acceptor *acceptor);
// Gives the socket another owner or mode. -ESTALE: the path does not lead to it.
int fl_listener_set_access(struct fl_listener *listener, const struct fl_socket_access *access);
// Makes those again whose files were removed, once in a while.
void fl_listeners_look(struct fl_acceptor *acceptor);

// --- for listen_look.c ---

// Its socket, for the first time, or after fl_listener_close_socket(). With an error it has none.
int fl_listener_open(struct fl_listener *listener);
// Takes the path away, accepts all that wait, and closes the socket, which is not watched.
void fl_listener_close_socket(struct fl_listener *listener);
// Has the keeper know what has changed.
void fl_listener_write_down(struct fl_listener *listener);
int fl_listener_watch(struct fl_listener *listener);
void fl_listener_unwatch(struct fl_listener *listener);
// A constant sentence, or strerror()'s.
const char *fl_listener_why(int error);

// Automatic listeners become those of exactly these images; others go with their images.
// Closes the sockets that the image has because it is in the store.
void fl_listeners_close_automatic(struct fl_acceptor *acceptor, const char *image);
void fl_listeners_follow(struct fl_acceptor *acceptor, char *const *images, unsigned count);

#endif
