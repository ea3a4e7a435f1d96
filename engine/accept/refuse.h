// SPDX-License-Identifier: Apache-2.0
//
// Clients that are not served, and whose faults may wait all the same. Control thread.
#ifndef FAULTLINE_ACCEPT_REFUSE_H
#define FAULTLINE_ACCEPT_REFUSE_H

#include <stdint.h>

struct fl_engine;
struct fl_peer;

// Refuses the peer with one log line. If it brought a userfaultfd, a process may wait on it, and
// closing it could hand out zeros: it is kept, and every fault on it is poisoned, until the peer is
// gone. Takes the peer's descriptors.
void fl_refuse(struct fl_engine *engine, struct fl_peer *peer, const char *image,
               const char *reason);
// Its line alone: `faults` says what becomes of those of the peer's memory, and `vm` is the VM that
// answers them (0: none).
void fl_refuse_log(struct fl_engine *engine, const char *image, int64_t pid, const char *faults,
                   uint64_t vm, const char *reason);

// The keeping alone, without a word.
void fl_keep_refused(struct fl_engine *engine, struct fl_peer *peer);
// Likewise a predecessor's VM that cannot be read: in the place of its record.
void fl_keep_unreadable(struct fl_engine *engine, struct fl_peer *peer, uint64_t id);

// A refused VM has forked; its child's userfaultfd is treated in the same way.
void fl_refuse_child(struct fl_engine *engine, int uffd);

#endif
