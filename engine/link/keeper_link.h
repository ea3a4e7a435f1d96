// SPDX-License-Identifier: Apache-2.0
//
// The engine's side of the keeper's channel: what it has kept for a successor, what it asks for,
// what it is told. Without a keeper (`faultline handler`, or when it was killed) nothing is kept,
// and connections are accepted here. Control thread only.
#ifndef FAULTLINE_LINK_KEEPER_LINK_H
#define FAULTLINE_LINK_KEEPER_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/link/channel.h"
#include "engine/link/keeper_link_ops.h"

struct fl_image;
struct fl_keeper_link;

// Tells the keeper, if there is one, that this engine is ready to be sent records.
int fl_keeper_link_start(const struct fl_keeper_link_options *options,
                         struct fl_keeper_link **ret_link);
void fl_keeper_link_stop(struct fl_keeper_link *keeper_link);

// Acts on what was told while an answer was waited for. Once a round.
void fl_keeper_link_run(struct fl_keeper_link *keeper_link);

// There is a keeper. (A NULL link has none.)
bool fl_keeper_link_any(const struct fl_keeper_link *keeper_link);
// JSON of the keeper's own about itself; "null" if there is none.
const char *fl_keeper_link_news(const struct fl_keeper_link *keeper_link);
// The keeper's process, as it has told it; 0: there is none, or it has not.
int fl_keeper_link_pid(const struct fl_keeper_link *keeper_link);
// A number for a record that no other record of its kind has.
uint64_t fl_keeper_link_new_id(struct fl_keeper_link *keeper_link);
// A predecessor's: not to be used again.
void fl_keeper_link_seen_id(struct fl_keeper_link *keeper_link, uint64_t id);

// --- keeping; all of these do nothing without a keeper, and for a NULL link ---

// `connection`: the record of the handshake that the VM comes from, 0 if none; it goes in the same
// step.
void fl_keeper_link_put_vm(struct fl_keeper_link *keeper_link, uint64_t vm,
                           const int fds[FL_VM_SLOTS], uint64_t connection);
// The same for one of its descriptors, which has become another.
void fl_keeper_link_put_vm_slot(struct fl_keeper_link *keeper_link, uint64_t vm,
                                enum fl_vm_slot slot, int fd, uint64_t connection);
void fl_keeper_link_put_image(struct fl_keeper_link *keeper_link, uint64_t id,
                              const struct fl_image *image);
void fl_keeper_link_put_socket(struct fl_keeper_link *keeper_link, enum fl_inherited_socket id,
                               int fd);
void fl_keeper_link_put_listener(struct fl_keeper_link *keeper_link, uint64_t id, int fd,
                                 int description);
void fl_keeper_link_put_connection(struct fl_keeper_link *keeper_link, uint64_t id, int fd,
                                   int description);
void fl_keeper_link_put_template(struct fl_keeper_link *keeper_link, uint64_t id, int memory,
                                 int state);
void fl_keeper_link_put_mode(struct fl_keeper_link *keeper_link, uint64_t mode);
void fl_keeper_link_put_counters(struct fl_keeper_link *keeper_link, uint64_t id, int fd);
// The file door: /dev/fuse, its state, and the number of its connection.
void fl_keeper_link_put_files(struct fl_keeper_link *keeper_link, int device, int state,
                              uint32_t connection);
void fl_keeper_link_drop(struct fl_keeper_link *keeper_link, enum fl_record_kind kind, uint64_t id);

// --- asking ---

// Accepts from a listener: the connection is a record from the first moment. The socket, or -errno.
// `id`: its record's, 0 at first; an attempt that failed is repeated with what it left there, as
// the keeper may have accepted what we had no descriptor for.
int fl_keeper_link_accept(struct fl_keeper_link *keeper_link, uint64_t listener, int listening,
                          uint64_t *id);
// How many descriptors the keeper can still take, as far as is known.
unsigned fl_keeper_link_room(const struct fl_keeper_link *keeper_link);
// -ENOTCONN without a keeper.
int fl_keeper_link_upgrade(struct fl_keeper_link *keeper_link, const char *path, bool keeper_too);
// Has the keeper, which may start processes, run a program with these arguments, each with a line's
// end, and with a socket as its standard input and output. Takes neither descriptor. If no process
// can be started the other end of the socket is told so as a line of JSON; a keeper of a version
// before just closes it. -ENOTCONN without a keeper, -ENAMETOOLONG.
int fl_keeper_link_run_command(struct fl_keeper_link *keeper_link, int socket, int program,
                               const char *arguments);
// We serve so many VMs: all that was sent has been taken over.
void fl_keeper_link_serving(struct fl_keeper_link *keeper_link, unsigned vms);
// Every thread of ours has answered.
void fl_keeper_link_pong(struct fl_keeper_link *keeper_link, uint64_t oldest_ns);
void fl_keeper_link_yielded(struct fl_keeper_link *keeper_link);
// What we lack, "" if nothing: for the service manager.
void fl_keeper_link_degraded(struct fl_keeper_link *keeper_link, const char *text);
// Nothing depends on us any more.
void fl_keeper_link_ended(struct fl_keeper_link *keeper_link);

// A keeper has come to an engine that had none: takes the channel, and has all kept by it.
// The caller tells it what the server lacks (fl_degraded_tell()). -EBUSY if there is a keeper.
int fl_keeper_link_change_keeper(struct fl_keeper_link *keeper_link, int channel);
// A keeper has come that is to replace the one that there is: passes its socket on to that one,
// which answers. Does not take the socket. -ENOTCONN without a keeper.
int fl_keeper_link_replace_keeper(struct fl_keeper_link *keeper_link, int socket);

#endif
