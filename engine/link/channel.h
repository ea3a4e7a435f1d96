// SPDX-License-Identifier: Apache-2.0
//
// What the keeper and its engines say to each other, and how: one SOCK_SEQPACKET datagram a
// message, with descriptors. Both ends are ours and of the same machine; they may be of different
// versions.
//
// The keeper is a store of records. A record has a kind, an id, a value and descriptors in
// numbered slots, some of which may be empty; what else must be known of it is in memfds among
// them. An engine PUTs what it would lose if it died, and DROPs it; its successor is sent it all.
#ifndef FAULTLINE_LINK_CHANNEL_H
#define FAULTLINE_LINK_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

// The descriptor at which an engine that a keeper has started finds its channel.
enum { FL_ENGINE_CHANNEL = 3 };
// What the path of the control API gets appended for the socket that new keepers connect to.
#define FL_KEEPER_SUFFIX ".keeper"

// The numbers are kept between versions. A successor is sent counters first, files before
// images and templates behind them, and else in this order.
enum fl_record_kind {
    FL_RECORD_MODE = 1,   // value: FL_MODE_*; no descriptors
    FL_RECORD_IMAGE,      // its file, then its packs
    FL_RECORD_VM,         // enum fl_vm_slot
    FL_RECORD_CONNECTION, // a handshake that is not complete: the socket, the listener's
                          // description
    FL_RECORD_LISTENER,   // a socket to accept from, its description (listen.h)
    FL_RECORD_SOCKET,     // id: enum fl_inherited_socket
    FL_RECORD_TEMPLATE,   // enum fl_template_slot; id: that of its image
    FL_RECORD_COUNTERS,   // the memfd of a ledger (ledger.h)
    FL_RECORD_FILES,      // enum fl_files_slot; id: FL_FILES_RECORD; value: the number of the
                          // kernel's connection, 0: not known
    FL_RECORD_KINDS,
};

// The keeper makes the first, when it mounts the files; the engine adds the second.
enum fl_files_slot { FL_FILES_DEVICE, FL_FILES_STATE, FL_FILES_SLOTS };
enum { FL_FILES_RECORD = 1 };
enum fl_template_slot { FL_TEMPLATE_MEMORY, FL_TEMPLATE_STATE, FL_TEMPLATE_SLOTS };
enum fl_vm_slot { FL_VM_STATE, FL_VM_UFFD, FL_VM_PIDFD, FL_VM_SOCKET, FL_VM_SLOTS };
// The third is no socket. To close an inotify instance for good takes the kernel 5 to 20 ms, and
// the VMs of an engine that dies would wait for that: so the keeper holds the instance, too.
enum fl_inherited_socket {
    FL_SOCKET_CONTROL = 1,
    FL_SOCKET_KEEPER,
    FL_SOCKET_INOTIFY,
    FL_SOCKET_OBSERVE,
    FL_SOCKET_METRICS,
    FL_INHERITED_SOCKETS,
};
enum { FL_MODE_REFUSING = 1, FL_MODE_RELEASING = 2, FL_MODE_STOPPING = 4 };

enum fl_message_type {
    // An engine to the keeper.
    FL_MESSAGE_READY = 1, // started; owns nothing yet. With what death_watch.h is about
    FL_MESSAGE_SERVING,   // has taken over what it was sent; likewise. value: VMs
    FL_MESSAGE_PUT,       // (a part of) a record. other: a connection that it takes the place of;
                          // then it is answered by KEPT
    FL_MESSAGE_DROP,      // a record
    FL_MESSAGE_ACCEPT,    // other: the listener; id: of the connection to be, or that was
                          // accepted already: it is sent again
    FL_MESSAGE_PONG,      // every thread has answered. value: ns that the oldest fault waits
    FL_MESSAGE_UPGRADE,   // text: path of the new engine, empty for the keeper's own; value:
                          // FL_UPGRADE_*
    FL_MESSAGE_YIELDED,   // touches nothing any more
    FL_MESSAGE_ENDED,     // asked to stop, and nothing depends on it any more
    FL_MESSAGE_DEGRADED = 16, // text: what it lacks, in sentences; empty: nothing
    FL_MESSAGE_REPLACE,       // with the socket of a keeper that wants all that this one has
    FL_MESSAGE_COMMAND,       // slots: enum fl_command_slot; text: arguments, each with a line's end
    // The keeper to an engine.
    FL_MESSAGE_RECORD = 32, // like PUT; other, of a VM: FL_VM_HELD
    FL_MESSAGE_SERVE,       // that was all. other: 1 if a service manager keeps all that we keep.
                            // id: of the keeper's room, as value of the next two
    FL_MESSAGE_ACCEPTED,    // the answer to ACCEPT, with the socket, or error. value: 1 + the
                            // descriptors that the keeper has room for; 0: it does not say
    FL_MESSAGE_PING,        // likewise
    FL_MESSAGE_STOP,        // SIGTERM has come. value: ms left for VMs to be filled
    FL_MESSAGE_YIELD,
    FL_MESSAGE_NEWS,       // for the status: text is JSON of the keeper's
    FL_MESSAGE_KEPT,       // the record `id` outlives this engine; or error. value: as ACCEPTED
    FL_MESSAGE_FREED,      // the VM `id`, which was HELD, may be served
    FL_MESSAGE_AGAIN = 48, // not all could be kept: put all of it once more
    // A process that has connected to CONTROL.keeper to the engine.
    FL_MESSAGE_HELLO = 64, // a new keeper, as the engine's has gone. value: FL_HELLO_*
    FL_MESSAGE_ADOPT,      // slots of a VM; value: FL_RESCUE_*
    FL_MESSAGE_ANSWER,     // error, text
    FL_MESSAGE_MAY_ADOPT,  // as ADOPT, but only answered: whether ADOPT would be refused
    // Between a process that takes a checkpoint and the engine, over CONTROL.keeper. The connection
    // is the capture: when it closes before COMMIT, all is undone.
    FL_MESSAGE_CAPTURE = 72,  // id: the VM; value: FL_CAPTURE_* (vm/capture_board.h); may be refused
                              // by ANSWER
    FL_MESSAGE_CAPTURE_BEGUN, // slots: enum fl_capture_slot; value: FL_CAPTURE_* as granted; text:
                              // the parent, as content id (64 digits), a space and the image's name
    FL_MESSAGE_CAPTURE_PHASE, // value: enum fl_capture_phase (vm/capture_board.h); FAILED: error,
                              // and the reason as text
    FL_MESSAGE_CAPTURE_FREEZE, // the VM is paused
    FL_MESSAGE_CAPTURE_COMMIT, // the image is published: text as of BEGUN; answered by PHASE
                               // KEPT, also if nothing is kept, and that was all
    // A keeper to the one that replaces it (keeper_replacement.c): RECORD for each record, then
    FL_MESSAGE_ENGINE = 80, // slots: enum fl_engine_slot; value: its generation; other: deaths of
                            // engines; text: the number of upgrades
    FL_MESSAGE_REPLACED,    // after the new one's ANSWER: all of it is the new one's from now on
};

enum { FL_UPGRADE_KEEPER = 1 };
// The new keeper wants to replace one that is alive.
enum { FL_HELLO_REPLACE = 1 };
enum fl_engine_slot { FL_ENGINE_SLOT_CHANNEL, FL_ENGINE_SLOT_LIFE, FL_ENGINE_SLOTS };
enum { FL_RESCUE_KILL = 1 };
// What a command has as its standard input and output, and which program it is.
enum fl_command_slot { FL_COMMAND_STDIO, FL_COMMAND_PROGRAM, FL_COMMAND_SLOTS };
enum { FL_COMMAND_ARGS = 128 }; // less than so many
enum fl_capture_slot { FL_CAPTURE_BOARD, FL_CAPTURE_BUFFER, FL_CAPTURE_SLOTS };
// A thread of its last engine is still in the kernel for this VM: it must not be touched yet.
enum { FL_VM_HELD = 1 };

enum { FL_CHANNEL_FDS = 32, FL_CHANNEL_TEXT = 4352 };

struct fl_message {
    uint32_t type;
    uint32_t kind;  // enum fl_record_kind
    uint64_t id;    // of the record
    uint64_t value; // by type
    uint64_t other;
    uint32_t slots; // of the whole record
    uint32_t first; // slot of the lowest bit of `mask`
    uint32_t mask;  // slots whose descriptors come along
    int32_t error;
    char text[FL_CHANNEL_TEXT]; // only as much of it is sent as there is
};

// Sends a message with the descriptors of `mask`, in the order of their slots. `fds` is indexed
// by slot - first. 0, -EAGAIN (only without `wait`), -EPIPE, -ECONNRESET ...
int fl_channel_send(int channel, const struct fl_message *message, const int *fds, bool wait);

// One message; its descriptors in ret_fds[slot - first], -1 where there is none, close-on-exec.
// 1, 0 at the end of the channel, -EAGAIN (only without `wait`), -EPROTO (not a message of ours),
// -EMFILE (no room for the descriptors: they are lost for this process; the message is there).
int fl_channel_receive(int channel, struct fl_message *ret_message, int ret_fds[FL_CHANNEL_FDS],
                       bool wait);
// Closes those that are left in the array.
void fl_channel_close_fds(int fds[FL_CHANNEL_FDS]);

// Sends a whole record in as many messages as it takes; `from` says where to begin, and is
// advanced: after -EAGAIN the call can be repeated. `slots` is at least 1 for the first message.
struct fl_record_view {
    uint32_t kind;
    uint64_t id;
    uint64_t value;
    uint32_t slots;
    const int *fd; // [slots]
};
int fl_channel_send_record(int channel, enum fl_message_type type,
                           const struct fl_record_view *record, uint64_t other, uint32_t *from,
                           bool wait);

#endif
