// SPDX-License-Identifier: Apache-2.0
//
// One connection, from accept() to a VM or a refusal: what is known of it, and its end. What
// happens in between stands in connection_handshake.h, connection_look.h, connection_attach.h and,
// for clients of a template, connection_template.h. Control thread only; never waits.
#ifndef FAULTLINE_ACCEPT_CONNECTION_H
#define FAULTLINE_ACCEPT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/accept/connection_state.h"
#include "engine/accept/peer.h"
#include "engine/base/fdpass.h"
#include "engine/base/io_pool.h"
#include "engine/base/loop.h"
#include "engine/base/mailbox.h"
#include "engine/host/memory_owner.h"
#include "engine/host/region.h"
#include "engine/link/endpoint_memfd.h"
#include "engine/vm/handshake.h"
#include "snapshot/read.h"

struct fl_acceptor;
struct fl_template;

// Allocated by fl_connection_new(), and in the acceptor's list until it is settled. A pointer to it
// is with the reader (job, mail) in the states LOOKING and COUNTING, and nowhere else.
struct fl_connection {
    enum fl_connection_state state; // changed by fl_connection_move() alone
    struct fl_source source;        // .fd -1: not watched
    struct cds_list_head link;
    struct fl_acceptor *acceptor;
    char image[FL_IMAGE_NAME_BYTES];
    struct fl_peer peer; // .uffd is set when the handshake is complete, or refused
    struct fl_fds fds;
    char *text;
    size_t used;
    uint64_t deadline_ns; // if its state has one
    uint64_t begun_ns;    // when this engine had it
    struct fl_layout layout;
    struct fl_handshake_more more;
    enum fl_purpose purpose;
    struct fl_template *template; // held
    uint64_t offered;             // its record: that of one that a predecessor has sent
    bool ungreeted;               // the template is being checked first: nothing was sent yet
    uint64_t retry_ns;            // while it is starved: when it is read once more
    const char *doomed;           // why it will be refused when its handshake is complete
    // A reader's, while it has the connection:
    struct fl_io_job job;
    struct fl_mail mail;
    struct fl_image *opened;
    struct fl_image *counting; // of which it is counted what it will need of the pool
    int open_error;
    const char *untrue; // why its handshake cannot be served; NULL: it can
    int64_t peer_pid;   // of the process that connected
    bool sought;        // whose memory it is
    int owner_error;    // why it is not known whose memory it is; 0: it is
    struct fl_memory_owner owner;
    uint64_t
        give_up_ns; // waiting for the end of a VM that had its memory before; 0: not judged yet
};

extern const char fl_no_new_vm[];      // why no handshake is taken any more
extern const char fl_no_descriptors[]; // why one is not taken now

// A new one in the list of the acceptor, of what the description says. Takes the socket, which is
// not watched yet; NULL without memory, and does not take it.
struct fl_connection *fl_connection_new(struct fl_acceptor *acceptor,
                                        const struct fl_endpoint *description, int socket,
                                        uint64_t record);
// Every change of its state. False, and nothing is changed, for a move that is not allowed.
bool fl_connection_move(struct fl_connection *connection, enum fl_connection_state to);
// What a successor is to know of it: a new memfd, or -errno.
int fl_connection_describe(const struct fl_connection *connection);
// Whether it has sent anything, read or not.
bool fl_connection_has_spoken(const struct fl_connection *connection);

// From now on it has --handshake-timeout to say what it wants.
void fl_connection_expect_soon(struct fl_connection *connection);
// Nothing more is read from it. It may have been called before.
void fl_connection_unwatch(struct fl_connection *connection);
// Takes the userfaultfd among what it has sent, and closes the rest.
void fl_connection_choose_uffd(struct fl_connection *connection);

// --- these settle it: it is freed ---

void fl_connection_refuse(struct fl_connection *connection, const char *reason);
// It has sent nothing that anything depends on, and goes without a word.
void fl_connection_drop(struct fl_connection *connection);
// It has come to something, but for what it has sent and its own end. The peer's socket goes to the
// VM, or is closed, before the handshake is taken out of it: so another descriptor of it comes
// first.
int fl_connection_own_socket(const struct fl_connection *connection);
void fl_connection_settled(struct fl_connection *connection, int own_socket);

#endif
