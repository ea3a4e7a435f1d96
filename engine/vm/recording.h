// SPDX-License-Identifier: Apache-2.0
//
// The first touches of one VM, in their order, for a while after it was attached: what a trace is
// merged from. Its pages come by faults alone meanwhile (fl_vm_is_recorded()), as a page that comes
// ahead of its touch hides it.
#ifndef FAULTLINE_VM_RECORDING_H
#define FAULTLINE_VM_RECORDING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/counter.h"
#include "engine/base/mailbox.h"
#include "engine/host/region.h"
#include "snapshot/read.h"

struct fl_order;
struct fl_recording_orders;
struct fl_vm;
struct fl_shard;

struct fl_vm_recording {
    // Constant while a worker has it. All its memory is there from the beginning.
    uint64_t vm_id;
    uint64_t begun_ns;
    uint64_t until_ns;
    uint64_t room;  // entries
    uint64_t bytes; // of memory, at most
    uint64_t image_pages;
    uint8_t content_id[32]; // of the image
    struct fl_trace_entry *entry;
    uint64_t *seen; // bitmap of the VM's pages

    _Atomic bool cancelled; // its order was withdrawn
    fl_counter count;       // entries so far; written by the owner

    struct fl_mail mail; // to the control thread, once it has ended
    // The control thread's (recording_orders.h):
    struct fl_recording_orders *orders;
    struct fl_order *order; // NULL: cancelled
    bool ended;
    struct cds_list_head in_order;
};

// For a VM of this image that is attached now; `share` percent of the image's pages at most. NULL
// without memory. The image is one of a store. .mail.deliver is up to the caller.
struct fl_vm_recording *fl_vm_recording_new(const struct fl_image *image,
                                            const struct fl_layout *layout, uint64_t window_ms,
                                            unsigned share);
void fl_vm_recording_free(struct fl_vm_recording *touches);
// What it would take, in bytes.
uint64_t fl_vm_recording_bytes(const struct fl_image *image, const struct fl_layout *layout,
                               unsigned share);

// Owner only, below; all for a VM that is recorded.
// Notes a fault for this page of the VM.
void fl_vm_recording_note(struct fl_shard *shard, struct fl_vm *vm, uint64_t page);
// Ends it if its time is over, or it was cancelled.
void fl_vm_recording_look(struct fl_shard *shard, struct fl_vm *vm);
// Ends it: mails it to the control thread. A VM that is not recorded is left alone.
void fl_vm_recording_end(struct fl_shard *shard, struct fl_vm *vm);

#endif
