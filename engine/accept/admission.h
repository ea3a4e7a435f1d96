// SPDX-License-Identifier: Apache-2.0
//
// Whether the host's pool of pages of 2 MiB can hold what a VM will need: the pages of its image's
// trace, or, without one, all that are not zero. What VMs that are attached still need of it is
// promised to them. Nothing is taken: a VM may need more, and others may be faster.
//
// Counting may have the map of an image read, so a reader does it. By default that is after the
// VM was attached, and a shortage is a line in the log; to refuse it, its handshake has to wait.
#ifndef FAULTLINE_ACCEPT_ADMISSION_H
#define FAULTLINE_ACCEPT_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/host/region.h"
#include "snapshot/error.h"
#include "snapshot/read.h"

struct fl_engine;
struct fl_vm;

// Whether that is to be known of a VM with this memory.
bool fl_admission_asks(const struct fl_engine *engine, const struct fl_layout *layout);
// Reader thread; blocks on storage. How many pages of 2 MiB the VM will need: 0 and *ret_need, or
// -EBUSY: soon. Without memory, or if the map cannot be read, all of them.
int fl_admission_count(struct fl_engine *engine, const struct fl_image *image,
                       const struct fl_layout *layout, uint64_t *ret_need);
// Control thread. False, with a sentence, if the pool cannot hold so many more.
bool fl_admission_holds(struct fl_engine *engine, uint64_t need, struct fl_error *ret_error);
// Control thread. Pages of 2 MiB that VMs still need.
uint64_t fl_admission_promised(struct fl_engine *engine);

// Control thread: a VM was attached, or taken over. Counts for it what was not counted yet.
void fl_admission_attached(struct fl_engine *engine, struct fl_vm *vm);

#endif
