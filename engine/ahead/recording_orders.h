// SPDX-License-Identifier: Apache-2.0
//
// Orders to record the next VMs of an image, and what came of them until it is fetched.
// Held in memory alone: an engine writes nothing to the store, and a client orders again if the
// engine has died. Control thread only.
#ifndef FAULTLINE_AHEAD_RECORDING_ORDERS_H
#define FAULTLINE_AHEAD_RECORDING_ORDERS_H

#include <stdint.h>

#include <urcu/list.h>

#include "engine/vm/recording.h"

enum { FL_ORDERS_MOST = 64, FL_ORDER_RUNS_MOST = 64, FL_ORDER_ID_MAX = 64 };
#define FL_ORDER_WINDOW_MOST_MS ((uint64_t)3600 * 1000)

struct fl_recording_orders {
    struct cds_list_head orders;
    unsigned count;
    uint64_t bytes;                 // of all records
    struct cds_list_head cancelled; // records whose VMs do not know yet
};

struct fl_order {
    struct cds_list_head link;
    char id[FL_ORDER_ID_MAX + 1];
    char image[FL_NAME_MAX + 1];
    unsigned runs;
    uint64_t window_ms;
    unsigned share;               // of the image, percent
    unsigned begun;               // runs that have begun and were not given up
    unsigned ended;               // of them complete
    struct cds_list_head records; // in the order in which they began
};

void fl_recording_orders_init(struct fl_recording_orders *recordings);
void fl_recording_orders_fini(struct fl_recording_orders *recordings);

// The image's order; NULL if there is none.
struct fl_order *fl_recording_orders_find(struct fl_recording_orders *recordings,
                                          const char *image);
// A new order like `wanted`, of which id, image, runs, window_ms and share count. The image has no
// order yet. NULL if there are too many, or there is no memory.
struct fl_order *fl_recording_orders_add(struct fl_recording_orders *recordings,
                                         const struct fl_order *wanted);
void fl_recording_orders_remove(struct fl_recording_orders *recordings, struct fl_order *order);

// A VM of the image is about to be attached: its record, if it is to be recorded.
struct fl_vm_recording *fl_recording_orders_begin(struct fl_recording_orders *recordings,
                                                  uint64_t vm_id, const struct fl_image *image,
                                                  const struct fl_layout *layout);
// VMs that are recorded now, and what they have touched so far.
struct fl_recording_orders_now {
    unsigned orders;
    unsigned vms;
    uint64_t pages;
};
struct fl_recording_orders_now
fl_recording_orders_now(const struct fl_recording_orders *recordings);
// The run'th of those that are complete; NULL if there are not so many.
const struct fl_vm_recording *fl_order_run(const struct fl_order *order, unsigned run);

#endif
