// SPDX-License-Identifier: Apache-2.0
//
// A page of a VM, to where its bytes are; want.h then installs it, parks it or fails it. Pages of
// 4 KiB are resolved in resolve.c, those of 2 MiB in resolve_huge.c. Owner worker only.
#ifndef FAULTLINE_SERVE_RESOLVE_H
#define FAULTLINE_SERVE_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/outcome.h"
#include "engine/serve/park.h"
#include "snapshot/read.h"

// A page that a fault asks for (read just now, and parked nowhere), and those behind it that may be
// installed together with it. `run`: what the image has for these, as fl_vm_run() said it just now;
// .pages of 0: it was not asked. `replayed`: it is a fault of FL_STAGE_REPLAY. *ret_there: how many
// of the pages are there now.
enum fl_outcome fl_resolve_some(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                uint32_t pages, const struct fl_run *run, bool replayed,
                                uint32_t *ret_there);
// A page that no thread waits for, as far as is known.
enum fl_outcome fl_resolve_ahead(struct fl_shard *shard, struct fl_vm *vm, uint64_t page);
// The page of a park, which is ended when the page is resolved (fl_park_resume).
void fl_resolve_parked(struct fl_shard *shard, struct fl_park *park);
// A thread waits for a page that only a fill had asked for.
void fl_resolve_hurry(struct fl_vm *vm, uint64_t page);

#endif
