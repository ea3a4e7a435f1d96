// SPDX-License-Identifier: Apache-2.0
//
// Of an image on offer chunks are packed in the order in which they are waited for. What goes by
// the order of memory, the content ids and the image's map, waits here for the chunks before it.
// Stage `write`: one thread at a time.
#ifndef FAULTLINE_SNAPSHOT_PACK_ORDER_H
#define FAULTLINE_SNAPSHOT_PACK_ORDER_H

#include "snapshot/chunk.h"

struct fl_pack_order;

// Called for each chunk, in order.
typedef int fl_in_order(void *arg, const struct fl_chunk *chunk);

// For so many pages. -ENOMEM.
int fl_pack_order_new(uint64_t pages, struct fl_pack_order **ret_order);
void fl_pack_order_free(struct fl_pack_order *order); // NULL is a no-op
// A chunk of memory, each once: of 512 pages, but for the last.
int fl_pack_order_add(struct fl_pack_order *order, const struct fl_chunk *chunk, fl_in_order *fn,
                      void *arg);

#endif
