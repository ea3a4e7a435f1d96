// SPDX-License-Identifier: Apache-2.0
//
// The histories of an engine: of which VMs one is kept, and of which no longer. They are kept of
// the last VMs that came (options->history), and of the next VMs of an image that was ordered. A
// new one takes the place of the oldest: of a VM that has ended, if there is one.
//
// Held in memory alone: a successor begins anew, with what it finds to be there. Control thread
// only.
#ifndef FAULTLINE_VM_HISTORIES_H
#define FAULTLINE_VM_HISTORIES_H

#include <stdint.h>

#include <urcu/list.h>

#include "engine/vm/history.h"

enum { FL_HISTORIES_MOST = 256, FL_HISTORIES_ORDERED = 16, FL_HISTORY_ORDERS_MOST = 64 };

struct fl_histories {
    struct cds_list_head all; // the oldest first
    unsigned count;
    unsigned keep;  // of any VM that comes; 0: of those that were ordered only
    uint64_t bytes; // of all
    struct cds_list_head orders;
    unsigned order_count;
};

// The next VMs of an image.
struct fl_history_order {
    struct cds_list_head link;
    char image[FL_IMAGE_NAME_BYTES];
    unsigned vms;   // that were ordered
    unsigned begun; // of them
};

void fl_histories_init(struct fl_histories *histories, unsigned keep);
// When no worker has a VM any more.
void fl_histories_fini(struct fl_histories *histories);

// The VM is about to get its owner: it gets a history if one is wanted.
void fl_histories_begin(struct fl_histories *histories, struct fl_vm *vm);
// No owner has the VM any more, and it is about to be freed.
void fl_histories_end(struct fl_histories *histories, struct fl_vm *vm);
// How many are kept at most.
unsigned fl_histories_room(const struct fl_histories *histories);
// NULL: there is none of this VM.
struct fl_vm_history *fl_histories_find(const struct fl_histories *histories, uint64_t vm_id);

// NULL: the image has no order.
struct fl_history_order *fl_histories_order_of(const struct fl_histories *histories,
                                               const char *image);
// For an image that has none. NULL: there are too many, or there is no memory.
struct fl_history_order *fl_histories_order(struct fl_histories *histories, const char *image,
                                            unsigned vms);
void fl_histories_cancel(struct fl_histories *histories, struct fl_history_order *order);

#endif
