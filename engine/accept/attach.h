// SPDX-License-Identifier: Apache-2.0
//
// From a handshake to a VM on a worker, and from a VM that is gone to nothing. Control
// thread, unless a function says otherwise.
#ifndef FAULTLINE_ACCEPT_ATTACH_H
#define FAULTLINE_ACCEPT_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/host/region.h"
#include "engine/link/endpoint_memfd.h"
#include "snapshot/read.h"

struct fl_engine;
struct fl_peer;
struct fl_vm;
struct fl_vm_state;

// Makes it a VM. Takes the peer's descriptors and the caller's hold on the image (fl_images_put);
// -ENOMEM, and takes neither: the caller refuses the peer.
int fl_attach(struct fl_engine *engine, struct fl_peer *peer, struct fl_image *image,
              const struct fl_layout *layout);

// A VM that another process served: made of its state memfd, in the table, but with no worker yet.
// `record`: it is the keeper's already, and keeps its number. Takes the state and the descriptors;
// NULL (and takes nothing) without memory.
struct fl_vm *fl_attach_state(struct fl_engine *engine, struct fl_peer *peer, int state_fd,
                              struct fl_vm_state *state, bool record);
// True if a VM in the table comes from that connection.
bool fl_attach_comes_from(struct fl_engine *engine, uint64_t connection);
// The VM in the table whose userfaultfd this is; NULL if there is none. It may be a refused one.
struct fl_vm *fl_attach_find(struct fl_engine *engine, int uffd);
// Gives it its image (NULL: its faults are poisoned) and a worker. Takes the hold on the image.
void fl_attach_adopted(struct fl_engine *engine, struct fl_vm *vm, struct fl_image *image);
// It was held, and may be served from now on.
void fl_attach_freed(struct fl_engine *engine, struct fl_vm *vm);
// Instead: forgets it, as another process still has its descriptors. It is in no list any more.
void fl_attach_forget(struct fl_engine *engine, struct fl_vm *vm);

// A VM that has no image, so that its faults are poisoned, under this number and with these flags
// (FL_VM_STATE_*). Takes the peer's descriptors; -ENOMEM, and takes none.
int fl_attach_imageless(struct fl_engine *engine, uint64_t id, struct fl_peer *peer,
                        uint64_t flags);

// Has a new keeper hold all VMs.
void fl_attach_keep_all(struct fl_engine *engine);

// A worker has mailed that the VM is gone: frees it.
void fl_vm_dispose(struct fl_engine *engine, struct fl_vm *vm);

#endif
