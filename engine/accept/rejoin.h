// SPDX-License-Identifier: Apache-2.0
//
// A userfaultfd that comes a second time: a client that tries again, or a second descriptor of it.
// One userfaultfd has one owner here, whatever number its descriptor has (fl_uffd_same): two would
// not know of each other's REMOVE events, and one of them would install what the guest has given
// back. So a handshake that says the same as the one before joins the VM that there is, and its
// socket takes the place of the first one's; any other is refused, and the VM goes on unharmed.
// Control thread.
#ifndef FAULTLINE_ACCEPT_REJOIN_H
#define FAULTLINE_ACCEPT_REJOIN_H

#include <stdbool.h>

#include "engine/host/region.h"
#include "snapshot/read.h"

struct fl_engine;
struct fl_peer;
struct fl_vm;

// Why a handshake for that is not the same as the one of the VM: a constant sentence; NULL: it is.
const char *fl_rejoin_differs(const struct fl_vm *vm, const struct fl_image *image, bool template,
                              const struct fl_layout *layout);
// It is the same. Takes the peer's descriptors.
void fl_rejoin(struct fl_engine *engine, struct fl_vm *vm, struct fl_peer *peer);

#endif
