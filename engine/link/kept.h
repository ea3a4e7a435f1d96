// SPDX-License-Identifier: Apache-2.0
//
// The engine's side of the keeper's channel: what it has kept for a successor, what it asks for,
// what it is told. Without a keeper (`faultline handler`, or when it was killed) nothing is kept,
// and connections are accepted here. Control thread only.
#ifndef FAULTLINE_LINK_KEPT_H
#define FAULTLINE_LINK_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/link/channel.h"

struct fl_image;
struct fl_kept;
struct fl_server;
struct fl_vm;

// channel: -1 without a keeper. Tells it that we are ready.
int fl_kept_start(struct fl_server *server, int channel, struct fl_kept **ret_kept);
void fl_kept_stop(struct fl_kept *kept);

// Acts on what was told while an answer was waited for. Once a round.
void fl_kept_run(struct fl_kept *kept);

// There is a keeper, or there may be one again. (A NULL kept has none.)
bool fl_kept_any(const struct fl_kept *kept);
// JSON of the keeper's own about itself; "null" if there is none.
const char *fl_kept_news(const struct fl_kept *kept);
// A number for a record that no other record of its kind has.
uint64_t fl_kept_new_id(struct fl_kept *kept);
// A predecessor's: not to be used again.
void fl_kept_seen_id(struct fl_kept *kept, uint64_t id);

// --- keeping; all do nothing without a keeper, and for a NULL kept ---

// `connection`: the record of the handshake that the VM comes from, 0 if none; it goes in the same
// step.
void fl_kept_put_vm(struct fl_kept *kept, const struct fl_vm *vm, uint64_t connection);
// The same for one of its descriptors, which has become another.
void fl_kept_put_vm_slot(struct fl_kept *kept, uint64_t vm, enum fl_vm_slot slot, int fd,
                         uint64_t connection);
void fl_kept_put_image(struct fl_kept *kept, uint64_t id, const struct fl_image *image);
void fl_kept_put_socket(struct fl_kept *kept, enum fl_kept_socket id, int fd);
void fl_kept_put_listener(struct fl_kept *kept, uint64_t id, int fd, int description);
void fl_kept_put_connection(struct fl_kept *kept, uint64_t id, int fd, int description);
void fl_kept_put_template(struct fl_kept *kept, uint64_t id, int memory, int state);
void fl_kept_put_mode(struct fl_kept *kept, uint64_t mode);
void fl_kept_drop(struct fl_kept *kept, enum fl_record_kind kind, uint64_t id);

// --- asking ---

// Accepts from a listener: the connection is a record from the first moment. The socket, or -errno.
// `id`: its record's, 0 at first; an attempt that failed is repeated with what it left there, as
// the keeper may have accepted what we had no descriptor for.
int fl_kept_accept(struct fl_kept *kept, uint64_t listener, int listening, uint64_t *id);
// How many descriptors the keeper can still take, as far as is known.
unsigned fl_kept_room(const struct fl_kept *kept);
// -ENOTCONN without a keeper.
int fl_kept_upgrade(struct fl_kept *kept, const char *path, bool keeper_too);
// We serve: all that was sent has been taken over.
void fl_kept_serving(struct fl_kept *kept);
// Every thread of ours has answered.
void fl_kept_pong(struct fl_kept *kept, uint64_t oldest_ns);
void fl_kept_yielded(struct fl_kept *kept);
// What we lack, "" if nothing: for the service manager.
void fl_kept_degraded(struct fl_kept *kept, const char *text);
// Nothing depends on us any more.
void fl_kept_ended(struct fl_kept *kept);

// A keeper has come to an engine that had none: takes the channel, and has all kept by it.
// -EBUSY if there is a keeper.
int fl_kept_change_keeper(struct fl_kept *kept, int channel);

#endif
